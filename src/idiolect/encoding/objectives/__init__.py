"""Training objectives of encoders: one file per objective, registered here by name."""

from idiolect.training.objectives.objective_registry import ObjectiveEntry, register

_ALL_KINDS = ("causal", "bidirectional", "encoder-decoder")

register(
    ObjectiveEntry(
        name="pairs",
        verb="tune",
        summary="bring each query close to its document, away from other documents",
        home="idiolect.encoding.objectives.contrastive:ContrastiveObjective",
        network_kinds=_ALL_KINDS,
        data="pairs",
    ),
    ObjectiveEntry(
        name="simcse",
        verb="tune",
        summary="two dropout passes over a text are a positive pair",
        home="idiolect.encoding.objectives.simcse:SimCSE",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="titles",
        verb="tune",
        summary="bring the title of a text close to the rest of it, away from other texts",
        home="idiolect.encoding.objectives.text_parts:Titles",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="headings",
        verb="tune",
        summary="bring a heading close to the text under it, away from other texts",
        home="idiolect.encoding.objectives.text_parts:Headings",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="crops",
        verb="tune",
        summary="bring a few words of a text close to the rest of it, away from other texts",
        home="idiolect.encoding.objectives.text_parts:Crops",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="parts",
        verb="tune",
        summary="the title, a heading or a crop of each text, drawn anew in each epoch",
        home="idiolect.encoding.objectives.text_parts:Parts",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="tsdae",
        verb="tune",
        summary="rebuild a text from the vector of a damaged copy",
        home="idiolect.encoding.objectives.tsdae:TSDAE",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="imitate",
        verb="tune",
        summary="reproduce the vectors of a teacher, the encoder before its vocabulary grew",
        home="idiolect.encoding.objectives.imitation:Imitation",
        network_kinds=_ALL_KINDS,
    ),
)
