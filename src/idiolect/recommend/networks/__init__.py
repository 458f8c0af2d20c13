"""Sequence networks over items, such as SASRec, BERT4Rec and GRU4Rec."""
