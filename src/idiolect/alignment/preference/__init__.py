"""Preference tuning: DPO, IPO, KTO, ORPO, SimPO."""
