# Branches of their own: training a network, and scoring a run against the truth.
#   snakemake train --profile profiles/local --configfile train.yaml
#   snakemake evaluate --profile profiles/local --configfile my.yaml
# The target comes first: Snakemake takes what follows a configuration file for another one.
rule train:
    input:
        RUN.branches.inputs("train"),
    output:
        RUN.branches.trained,
    log:
        RUN.file_of("train", "log"),
    benchmark:
        RUN.file_of("train", "tsv")
    threads: RUN.threads("train")
    resources:
        **RUN.resources_of_branch("train"),
    params:
        config=RUN.config,
    shell:
        "cellseg job train {params.config:q} --threads {threads} > {log:q} 2>&1"


rule evaluate:
    input:
        RUN.branches.inputs("evaluate"),
    output:
        RUN.branches.scored,
    log:
        RUN.file_of("evaluate", "log"),
    benchmark:
        RUN.file_of("evaluate", "tsv")
    resources:
        **RUN.resources_of_branch("evaluate"),
    params:
        scoring=RUN.branches.scoring,
    shell:
        "cellseg job evaluate {params.scoring:q} > {log:q} 2>&1"
