"""``ase-cg cache``."""

from typing import Annotated

import typer


def cache_command(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all compiled models.")] = False,
) -> None:
    """Show, or clear, the folder of compiled models ($ASE_CG_CACHE, or ase-cg in your cache folder)."""
    from ase_cg.inference.cache import LIMIT, cache_folder, cached_size
    from ase_cg.inference.cache import clear as clear_cache

    number, size = clear_cache() if clear else cached_size()
    done = "deleted from" if clear else "in"
    typer.echo(f"{number} packages, {size / 1e6:.1f} MB, {done} {cache_folder()} (limit {LIMIT / 1e9:.1f} GB)")
