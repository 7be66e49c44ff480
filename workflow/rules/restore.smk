# The restored image as a store of its own, where restore.save asks for it.
rule restore:
    input:
        RUN.inputs("restore"),
    output:
        RUN.pattern("restore"),
    log:
        RUN.log("restore"),
    benchmark:
        RUN.benchmark("restore")
    threads: RUN.threads("restore")
    resources:
        **RUN.resources("restore"),
    params:
        config=RUN.config,
    shell:
        "cellseg job restore {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule shrink:
    input:
        RUN.inputs("shrink"),
    output:
        RUN.pattern("shrink"),
    log:
        RUN.log("shrink"),
    benchmark:
        RUN.benchmark("shrink")
    threads: RUN.threads("shrink")
    resources:
        **RUN.resources("shrink"),
    params:
        config=RUN.config,
    shell:
        "cellseg job shrink {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
