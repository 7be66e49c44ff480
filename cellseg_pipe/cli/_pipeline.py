"""The commands of the pipeline, from an experiment file to its results; and one job of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_pipeline"]

Commands = argparse._SubParsersAction


def add_pipeline(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the commands.

    Parameters
    ----------
    commands : subparsers
        Of the program.
    common : ArgumentParser
        What all commands take.
    """
    adders = (_add_plan, _add_run, _add_status, _add_cancel, _add_clean)
    for add in (*adders, _add_validate, _add_job):
        add(commands, common)


def _add_plan(commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "plan",
        parents=[common],
        help="what a run would take; exit 1 if it does not fit",
        description="Measure what has to be measured and say how many tiles and jobs there are, and"
        " what they will take. A run begins with the same plan.",
    )
    parser.add_argument("config", type=Path, help="the experiment file")
    parser.add_argument("--jobs", type=int, default=1, help="jobs that run side by side")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="try a few tiles of each image first; what they take is kept with the run",
    )
    parser.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import forecast

    prediction = forecast.run(options.config, jobs=options.jobs, calibrate=options.calibrate)
    print(prediction.text)
    return 0 if prediction.fits else 1


def _add_run(commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "run",
        parents=[common],
        help="segment all images of an experiment file",
        description="Run the whole experiment, or go on with it: what is done is not done again.",
    )
    parser.add_argument("config", type=Path, help="the experiment file")
    parser.add_argument(
        "--engine", choices=("process", "snakemake", "dask"), help="instead of the file's"
    )
    parser.add_argument("--cores", type=int, help="cores to use (default: all)")
    parser.add_argument("--profile", type=Path, help="profile of Snakemake, as profiles/slurm")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-n", "--dry-run", action="store_true", help="only say what would run")
    how.add_argument(
        "--submit",
        action="store_true",
        help="run Snakemake itself as a job of Slurm (with --profile, by default profiles/slurm)",
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    if options.submit:
        return _submit(options)
    from cellseg_pipe.cli._report import report_run
    from cellseg_pipe.config import load_experiment
    from cellseg_pipe.engines import start
    from cellseg_pipe.stages.summary import SomeFailed

    folder = Path(load_experiment(options.config).output.dir)
    try:
        status = start.run(
            options.config,
            engine=options.engine,
            cores=options.cores,
            profile=options.profile,
            dry_run=options.dry_run,
        )
    except SomeFailed:
        report_run(folder)  # which lists them
        raise
    if status == 0 and not options.dry_run:
        report_run(folder)
    return status


def _submit(options: argparse.Namespace) -> int:
    from cellseg_pipe.engines.snakemake import SNAKEFILE
    from cellseg_pipe.engines.submit import submit

    if options.engine in ("process", "dask") or options.cores:
        raise ValueError(
            "--submit needs the engine snakemake, whose jobs Slurm gives their cores: leave out"
            " --engine and --cores."
        )
    profile = options.profile or SNAKEFILE.parent / "profiles" / "slurm"
    print(submit(options.config, profile=profile))
    return 0


def _add_status(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "status", parents=[common], help="how far a run is, from its own records"
    )
    parser.add_argument("dir", type=Path, help="folder of the results")
    parser.set_defaults(command=_status)


def _status(options: argparse.Namespace) -> int:
    from cellseg_pipe.engines._queue import jobs_in_queue, listed
    from cellseg_pipe.stages import status

    found = status.read_status(options.dir)
    print(found.text)
    if queued := jobs_in_queue(options.dir):
        print(f"in the queue of Slurm: {listed(queued)}")
    return 0 if found.complete else 1


def _add_cancel(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "cancel",
        parents=[common],
        help="stop the run that works in a folder; it can be gone on with",
        description="Interrupt the run that holds the folder on this machine, and wait until it and"
        " its jobs have stopped. What is done is kept.",
    )
    parser.add_argument("dir", type=Path, help="folder of the results")
    parser.add_argument("--wait", type=float, default=60.0, metavar="S", help="seconds (60)")
    parser.set_defaults(command=_cancel)


def _cancel(options: argparse.Namespace) -> None:
    from cellseg_pipe.engines.stop import cancel

    print(cancel(options.dir, wait_s=options.wait))


def _add_clean(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "clean",
        parents=[common],
        help="free what a folder can do without",
        description="List what no experiment of the folder names, and what crashes have left. With"
        " --yes it is removed. Published results are never touched.",
    )
    parser.add_argument("dir", type=Path, help="folder of the results")
    parser.add_argument(
        "--scratch", action="store_true", help="windows and tiles of finished units too"
    )
    parser.add_argument(
        "--old", action="store_true", help="what only earlier experiments of the folder name too"
    )
    parser.add_argument("--yes", action="store_true", help="remove it")
    parser.set_defaults(command=_clean)


def _clean(options: argparse.Namespace) -> None:
    from cellseg_pipe.engines.stop import idle
    from cellseg_pipe.stages import clean

    asked = {"old": options.old, "scratch": options.scratch}
    scopes = ("orphans", *(name for name, wanted in asked.items() if wanted))
    clean.layouts_in(options.dir)  # refuses a folder without a run before it makes a lock there
    with idle(options.dir, job="cellseg clean"):
        found = clean.find(options.dir, scopes)
        print(clean.text_of(found, options.dir))
        if options.yes:
            clean.remove(found)
    if found and not options.yes:
        print("nothing was removed: --yes does it")


def _add_validate(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "validate", parents=[common], help="check the metadata of an OME-Zarr store"
    )
    parser.add_argument("store", help="a folder, zip file or URL")
    parser.set_defaults(command=_validate)


def _validate(options: argparse.Namespace) -> int:
    from cellseg_pipe.io.validate import validate

    findings = validate(options.store)
    for finding in findings:
        print(finding)
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{options.store}: {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def _add_job(commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "job", parents=[common], help="run one job of a run (what the rules call)"
    )
    parser.add_argument("stage", help="name of the stage, or summary, train, evaluate")
    parser.add_argument("config", type=Path, help="the experiment in effect")
    parser.add_argument("unit", nargs="?", help="name of the unit")
    parser.add_argument("--batch", type=int, default=0, help="which batch")
    parser.add_argument("--threads", type=int, help="threads to use")
    parser.add_argument(
        "--spread", action="store_true", help="all batches, over the workers of engine dask"
    )
    parser.set_defaults(command=_job)


def _job(options: argparse.Namespace) -> None:
    from cellseg_pipe.ledger import stop_in_time
    from cellseg_pipe.machine import end_of_job

    stop_in_time(end_of_job())
    if options.stage in BRANCHES:
        BRANCHES[options.stage](options)
        return
    from cellseg_pipe.stages import named_jobs, took

    if options.stage == "summary":
        named_jobs.finish(options.config)
    elif options.spread:
        from cellseg_pipe.engines import dask

        dask.spread(options.config, options.unit, options.stage, cores=options.threads)
    else:
        named_jobs.run_one(
            options.config,
            options.unit,
            options.stage,
            batch=options.batch,
            threads=options.threads,
            since=took.of_process(),
        )


def _job_train(options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import train
    from cellseg_pipe.training.loop import Diverged

    try:
        train.run_job(options.config, threads=options.threads)
    except Diverged as error:
        raise ValueError(str(error)) from error


def _job_evaluate(options: argparse.Namespace) -> None:
    from cellseg_pipe.cli._report import report_run
    from cellseg_pipe.stages import evaluate_run

    evaluate_run.run_job(options.config)
    # A report of a run that is being finished comes later, or is followed by this one.
    report_run(evaluate_run.read_scoring(options.config).root)


BRANCHES = {"train": _job_train, "evaluate": _job_evaluate}
