# Numbers the cells of all tiles and paints the labels.
rule seams:
    input:
        RUN.inputs("seams"),
    output:
        RUN.pattern("seams"),
    log:
        RUN.log("seams"),
    benchmark:
        RUN.benchmark("seams")
    resources:
        **RUN.resources("seams"),
    params:
        config=RUN.config,
    shell:
        "cellseg job seams {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule rivals:
    input:
        RUN.inputs("rivals"),
    output:
        RUN.pattern("rivals"),
    log:
        RUN.log("rivals"),
    benchmark:
        RUN.benchmark("rivals")
    resources:
        **RUN.resources("rivals"),
    params:
        config=RUN.config,
    shell:
        "cellseg job rivals {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule number:
    input:
        RUN.inputs("number"),
    output:
        RUN.pattern("number{number}"),
    log:
        RUN.log("number{number}"),
    benchmark:
        RUN.benchmark("number{number}")
    wildcard_constraints:
        number=r"\d*",
    resources:
        **RUN.resources("number"),
    params:
        config=RUN.config,
    shell:
        "cellseg job number{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --batch {wildcards.batch} --threads {threads} > {log:q} 2>&1"


rule link:
    input:
        RUN.inputs("link"),
    output:
        RUN.pattern("link"),
    log:
        RUN.log("link"),
    benchmark:
        RUN.benchmark("link")
    resources:
        **RUN.resources("link"),
    params:
        config=RUN.config,
    shell:
        "cellseg job link {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule chain:
    input:
        RUN.inputs("chain"),
    output:
        RUN.pattern("chain"),
    log:
        RUN.log("chain"),
    benchmark:
        RUN.benchmark("chain")
    resources:
        **RUN.resources("chain"),
    params:
        config=RUN.config,
    shell:
        "cellseg job chain {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule paint:
    input:
        RUN.inputs("paint"),
    output:
        RUN.pattern("paint"),
    log:
        RUN.log("paint"),
    benchmark:
        RUN.benchmark("paint")
    threads: RUN.threads("paint")
    resources:
        **RUN.resources("paint"),
    params:
        config=RUN.config,
    shell:
        "cellseg job paint {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
