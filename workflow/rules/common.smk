# What all rules share: the layout of the run. Nothing is computed here.
from cellseg_pipe.engines.snakemake import Workflow

RUN = Workflow(config, workflow)


workdir: RUN.root


# Of no effect unless Snakemake is told to use containers.
container: RUN.container


wildcard_constraints:
    unit=r"[^/]+",
    digest=r"[0-9a-f]{12}",
    batch=r"\d+",
    stage=r"[a-z]\w*",


onstart:
    RUN.begin()


onsuccess:
    RUN.succeed()


onerror:
    RUN.fail()


if RUN.spreading.asked:
    # With engine dask: all jobs of a stage in one, which starts the workers.

    rule spread:
        input:
            RUN.spreading.inputs,
        output:
            RUN.gates.whole,
        log:
            RUN.log("{stage}").replace("{batch}", "all"),
        benchmark:
            RUN.benchmark("{stage}").replace("{batch}", "all")
        threads: RUN.spreading.threads
        resources:
            **RUN.spreading.resources,
        params:
            config=RUN.config,
        shell:
            "cellseg job {wildcards.stage} {params.config:q} {wildcards.unit:q} --spread"
            " --threads {threads} > {log:q} 2>&1"

else:
    # Between stages of many jobs: without it each job of the one waits for each of the other.

    rule gate:
        input:
            RUN.gates.inputs,
        output:
            RUN.gates.whole,
        log:
            RUN.log("{stage}").replace("{batch}", "gate"),
        localrule: True
        shell:
            "touch {output:q} > {log:q} 2>&1"

    # A gate of very many jobs has parts.
    rule gate_part:
        input:
            RUN.gates.inputs_of_part,
        output:
            RUN.gates.part,
        log:
            RUN.log("{stage}").replace("{batch}", "gate-{part}"),
        wildcard_constraints:
            part=r"\d+",
        localrule: True
        shell:
            "touch {output:q} > {log:q} 2>&1"
