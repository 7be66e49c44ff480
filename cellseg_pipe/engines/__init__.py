"""How the jobs of a run are spread: in this process, by Snakemake."""
