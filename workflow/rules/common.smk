# What all rules share: the layout of the run. Nothing is computed here.
from cellseg_pipe.engines.snakemake import Workflow

RUN = Workflow(config, workflow)


workdir: RUN.root


wildcard_constraints:
    unit=r"[^/]+",
    digest=r"[0-9a-f]{12}",
    batch=r"\d+",
    stage=r"[a-z]\w*",


onstart:
    RUN.begin()


onsuccess:
    RUN.end()


onerror:
    RUN.fail()


# Between stages of many jobs: without it each job of the one waits for each of the other.
rule gate:
    input:
        RUN.gated,
    output:
        RUN.gate,
    log:
        RUN.log("{stage}").replace("{batch}", "gate"),
    localrule: True
    shell:
        "touch {output:q} > {log:q} 2>&1"
