"""Align a language model: SFT, reward models, preference tuning, RL, and judging answers."""

from idiolect.training.objectives.objective_registry import ObjectiveEntry, register

_CAUSAL = ("causal",)
_ANY = ("causal", "bidirectional")

register(
    ObjectiveEntry(
        name="sft",
        verb="align",
        summary="write the answers of conversations",
        home="idiolect.alignment.chat.supervised:SupervisedTuning",
        network_kinds=_CAUSAL,
        data="conversations",
    ),
    ObjectiveEntry(
        name="reward",
        verb="align",
        summary="score the chosen answer above the rejected one (Bradley-Terry)",
        home="idiolect.alignment.reward.reward_objective:RewardObjective",
        network_kinds=_ANY,
        data="preferences",
    ),
    *(
        ObjectiveEntry(
            name=name,
            verb="align",
            summary=summary,
            home="idiolect.alignment.preference.preference_objective:PreferenceObjective",
            network_kinds=_CAUSAL,
            data="preferences",
        )
        for name, summary in (
            ("dpo", "prefer chosen answers, close to a reference (Rafailov et al. 2023)"),
            ("ipo", "the same with a bounded margin (Azar et al. 2023)"),
            ("kto", "prefer good answers, without pairs (Ethayarajh et al. 2024)"),
            (
                "orpo",
                "write chosen answers and prefer them, without a reference (Hong et al. 2024)",
            ),
            ("simpo", "prefer by mean log-probability, without a reference (Meng et al. 2024)"),
        )
    ),
    *(
        ObjectiveEntry(
            name=name,
            verb="align",
            summary=summary,
            home="idiolect.alignment.reinforcement.policy_objective:PolicyObjective",
            network_kinds=_CAUSAL,
            data="prompts",
        )
        for name, summary in (
            ("ppo", "raise a reward, with a value head and clipped steps (Schulman et al. 2017)"),
            ("rloo", "raise a reward against the other samples' mean (Ahmadian et al. 2024)"),
            ("grpo", "raise a reward normalised within each group (Shao et al. 2024)"),
        )
    ),
)
