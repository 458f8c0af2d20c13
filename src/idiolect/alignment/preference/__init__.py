"""Tuning on preferences: DPO, IPO, KTO, ORPO, SimPO."""
