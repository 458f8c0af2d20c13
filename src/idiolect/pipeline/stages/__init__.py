"""The stages of the pipeline, one per file; a new file with a `STAGE` adds a stage.

Reading a configuration imports all of them, so slow modules are imported inside functions.

    RUN/idiolect.toml            the configuration as used
    RUN/manifest.json            versions, and each stage's fingerprint and seconds
    RUN/metrics.json             {stage: the content of its own metrics.json}
    RUN/report.html              the report
    RUN/stages/STAGE/metrics.json

The stages are audit, extend, distill, pretrain, tune, index and evaluate; with histories, recommend
and evaluate_recommend as well; with a task, evaluate_task. The controls are stages in the same
format: `plain.pretrain` and `plain.tune` train the base without new tokens, `random.extend` to
`random.tune` add terms chosen at random.

    audit/terms.json             the chosen terms, as `Terms.load` reads them
    extend/model                 the extended model; its extension.json lists the new tokens
    distill/model                the model after distillation; metrics.jsonl has a line per step
    pretrain/model               the model after pre-training; metrics.jsonl
    tune/model                   the finished encoder, as `Encoder.load` reads it; metrics.jsonl
    index/index                  the index, as `Index.open` reads it
    evaluate/vectors.npy         vectors of the tuned encoder, one row per item, in order
    evaluate/searches.json       `ExampleSearches`: searches before and after, and those without
                                 a relevant result
    recommend/recommender        the recommender, as `Recommender.load` reads it
    evaluate_task/heads/M.S.json right and judged, for each text of the test, of model M and seed S
"""
