# Looks at the image and at seams, and writes the labels without dropped cells.
rule qc:
    input:
        RUN.inputs("qc"),
    output:
        RUN.pattern("qc"),
    log:
        RUN.log("qc"),
    benchmark:
        RUN.benchmark("qc")
    threads: RUN.threads("qc")
    resources:
        **RUN.resources("qc"),
    params:
        config=RUN.config,
    shell:
        "cellseg job qc {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule judge:
    input:
        RUN.inputs("judge"),
    output:
        RUN.pattern("judge"),
    log:
        RUN.log("judge"),
    benchmark:
        RUN.benchmark("judge")
    resources:
        **RUN.resources("judge"),
    params:
        config=RUN.config,
    shell:
        "cellseg job judge {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule sift:
    input:
        RUN.inputs("sift"),
    output:
        RUN.pattern("sift"),
    log:
        RUN.log("sift"),
    benchmark:
        RUN.benchmark("sift")
    threads: RUN.threads("sift")
    resources:
        **RUN.resources("sift"),
    params:
        config=RUN.config,
    shell:
        "cellseg job sift {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
