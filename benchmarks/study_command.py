"""The command line of a study with many rows: which are done, doing what is missing, and the table."""

import argparse
import fnmatch
import json
import time
from collections.abc import Callable
from pathlib import Path

from study import Case, Study, row_name

Row = tuple[Case, tuple[str, ...] | None]  # with the names of the sharpened priors, None for all


def study_command(
    description: str | None, kind: type[Study], all_rows: Callable[[list[int]], list[Row]], report: Callable[..., None]
) -> None:
    """Do what is missing, then show the table.

    Parameters
    ----------
    description : str
    kind : type
        Of study.
    all_rows : callable
        Returns the rows for seeds, in the order in which they are made.
    report : callable
        Writes and prints what there is, given the study, the seeds, and ``quiet``.

    Results lie on one machine; what a study writes as ``.json`` can be given to another as ``--known``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/data_efficiency"))
    parser.add_argument("--effort", choices=("smoke", "quick", "standard"), default="standard")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="*", help="pattern of the cases, such as 'dipeptide/*_0.05_*'")
    parser.add_argument("--limit", type=int, help="do at most so many cases")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--known", type=Path, help="results of another machine, which are shown and not made again")
    parser.add_argument("--list", action="store_true", help="show the cases and what is done of them")
    parser.add_argument("--table", action="store_true", help="show the table of what is done")
    arguments = parser.parse_args()
    known = {} if arguments.known is None else json.loads(arguments.known.read_text())
    study = kind(arguments.folder / arguments.effort, arguments.effort, arguments.device, known)
    rows = [row for row in all_rows(arguments.seeds) if fnmatch.fnmatch(row_name(*row), arguments.only)][
        : arguments.limit
    ]
    if arguments.list:
        print("\n".join(f"{'    ' if study.found(*row) is None else 'done'} {row_name(*row)}" for row in rows))
        return
    for row in [] if arguments.table else rows:
        if study.found(*row) is None:
            print(f"{time.strftime('%H:%M:%S')} {row_name(*row)}", flush=True)
            study.run(*row)
            report(study, arguments.seeds, quiet=True)
    report(study, arguments.seeds)
