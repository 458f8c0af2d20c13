"""Training data: documents as token ids, packed and shuffled into batches."""
