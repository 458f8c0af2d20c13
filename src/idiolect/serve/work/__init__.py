"""How work reaches the model and the index: batches, pools and queues of bounded length."""
