# Segments the images of an experiment file:
#   snakemake --profile profiles/local --configfile my.yaml
if not config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/stitch.smk"
include: "workflow/rules/relate.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/qc.smk"
include: "workflow/rules/restore.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        RUN.goals,
