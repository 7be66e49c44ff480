# Small images: one job segments many of them, each whole. Their plan is made by the rule `plan`.
rule bundle:
    input:
        RUN.inputs("bundle"),
    output:
        RUN.pattern("bundle{number}"),
    log:
        RUN.log("bundle{number}"),
    benchmark:
        RUN.benchmark("bundle{number}")
    wildcard_constraints:
        number=r"\d+",
    threads: RUN.threads("bundle")
    resources:
        **RUN.resources("bundle"),
    params:
        config=RUN.config,
    shell:
        "cellseg job bundle{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"
