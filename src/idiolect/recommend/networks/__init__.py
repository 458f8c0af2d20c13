"""Sequence networks over items: SASRec, BERT4Rec and GRU4Rec, trained by the one session."""
