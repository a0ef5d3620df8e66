"""`epollwsgi compress DIRECTORY`: compressed copies of a site's files, written beside them before it is deployed.

Knows which files are worth it, which copies are current and how one comes into being at once or not at all; the
codings are those of `codings`, the rule by which a server takes a copy is `static`'s. Several processes compress, one
copy at a time each; the first one only counts.

    walk --> Job for each copy that is missing or stale --> write_copy in a process --> Outcome --> summary
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from epollwsgi.codings import CODINGS, Coding, available, coding_of
from epollwsgi.command_help import write_section
from epollwsgi.commands.copies import Job, Outcome, Result, remove_unfinished, write_copy
from epollwsgi.commands.show import count_of, show_path, show_size
from epollwsgi.commands.siblings import describe_sibling
from epollwsgi.commands.tree import Entry, Folder, is_hidden, open_root, walk
from epollwsgi.importer import check_site
from epollwsgi.static.beneath import Root
from epollwsgi.static.media_types import is_compressible, is_text_like
from epollwsgi.static.paths import is_configuration

if TYPE_CHECKING:
    import click

EXAMPLES: Final = (
    ("epollwsgi compress ./html", "every file that is worth it, whatever changed since the last time"),
    ("epollwsgi compress --force ./html", "all of them anew"),
)
EXTRA: Final = "pip install 'epollwsgi[compress]'"
PR_SET_PDEATHSIG: Final = 1
ENDING: Final = (signal.SIGINT, signal.SIGTERM)
END_TIMEOUT_S: Final = 5.0  # a library may be busy with a piece so long before a signal is seen


@dataclass(slots=True)
class Sum:
    """Copies in one coding: how many, their size, and that of the files they were made from."""

    count: int = 0
    size: int = 0
    file_size: int = 0

    def add(self, size: int, file_size: int) -> None:
        self.count += 1
        self.size += size
        self.file_size += file_size


@dataclass(slots=True)
class Survey:
    """What a site holds: the files worth compressing with their sizes, the jobs, the copies that stay, the leftovers.

    kept: for each token the number of current copies, their size and that of their files.
    orphans: copies whose file is gone.
    """

    file_count: int = 0
    file_size: int = 0
    jobs: list[Job] = field(default_factory=list)
    kept: dict[str, Sum] = field(default_factory=dict)
    orphans: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# --- the command ----------------------------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """The command; 0, or 1 where a copy could not be written. Raises StartError."""
    from epollwsgi.command_line import call_command

    found = call_command(build_command(), arguments)
    return found if isinstance(found, int) else 0


def build_command() -> click.Command:
    """The click command."""
    import click

    def collect(directory: str, force: bool, jobs: int | None, allow_source: bool) -> int:
        return compress(directory, force=force, process_count=jobs or cpu_count(), allow_source=allow_source)

    class Shown(click.Command):
        """Shows examples below the options."""

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            write_section(formatter, "Examples", EXAMPLES)

    return Shown(
        "epollwsgi compress",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        callback=collect,
        params=[
            click.Argument(["directory"], metavar="DIRECTORY"),
            click.Option(["-f", "--force"], is_flag=True, help="write copies anew that are current"),
            click.Option(
                ["-j", "--jobs"],
                type=click.IntRange(1, 256),
                metavar="N",
                help="processes that compress; as many as CPUs unless given",
            ),
            click.Option(["--allow-source"], is_flag=True, help="take a directory that looks like source code"),
        ],
        help="Write compressed copies (.br, .zst, .gz) beside the files of a site: of text-like ones of 512 bytes or "
        "more, where the copy is smaller and the one that is there is not current. The server sends them as they are.",
    )


def cpu_count() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def compress(directory: str, *, force: bool, process_count: int, allow_source: bool) -> int:
    """Write the copies and say what was done; the exit code. Raises StartError."""
    check_site(directory, allow_source)
    survey = Survey()
    outcomes: list[Outcome] = []
    stopped = ""
    try:
        examine(open_root(directory), available(), force, survey)
        with show_progress(len(survey.jobs)) as step:
            # Largest first, so that none of them is left for the end, when all but one process have nothing to do.
            for outcome in work_off(sorted(survey.jobs, key=lambda job: -job.size), process_count):
                outcomes.append(outcome)
                step(1)
    except KeyboardInterrupt:
        stopped = "stopped"
    except BrokenProcessPool:
        stopped = "a process was killed, perhaps for want of memory: try --jobs 1"
    return report(survey, outcomes, show_path(os.fsencode(directory)), stopped)


# --- what there is to do --------------------------------------------------------------------------------------------


def examine(root: Root, codings: Iterable[Coding], force: bool, survey: Survey) -> None:
    """Look through the site."""
    for folder in walk(root):
        if folder.error:
            survey.problems.append(f"{show_path(folder.path) or '.'}: {folder.error}")
        examine_folder(root, folder, codings, force, survey)


def examine_folder(root: Root, folder: Folder, codings: Iterable[Coding], force: bool, survey: Survey) -> None:
    """Add one directory to the survey."""
    files = {entry.name: entry for entry in folder.entries if stat.S_ISREG(entry.status.st_mode)}
    for name, entry in files.items():
        if is_hidden(folder.path, name, is_top=True) or is_configuration(name):
            continue
        coding = coding_of(name)
        if coding is not None:
            source = name.removesuffix(coding.suffix)
            # Without its file it may as well be an archive that is meant to be fetched, if it is called so.
            if source not in files and (coding.token == "br" or is_text_like(source)):
                survey.orphans.append(folder.path_of(name))
            continue
        if not is_compressible(name, entry.status.st_size):
            continue
        survey.file_count += 1
        survey.file_size += entry.status.st_size
        for coding in codings:
            sibling = files.get(name + coding.suffix)
            if sibling is not None and not force and is_current(root, folder, entry, sibling, coding):
                survey.kept.setdefault(coding.token, Sum()).add(sibling.status.st_size, entry.status.st_size)
            else:
                job = Job(root.directory, folder.path, name, coding.token, entry.status.st_size)
                survey.jobs.append(job)


def is_current(root: Root, folder: Folder, entry: Entry, sibling: Entry, coding: Coding) -> bool:
    """True for a copy that the server would take and that is no larger than it must be.

    The modification time of ours is that of the file. Another's is only right if it decodes to the file: it may belong
    to a version that was replaced by an older one.
    """
    is_ours = sibling.status.st_mtime_ns == entry.status.st_mtime_ns
    path = folder.path_of(entry.name)
    return not describe_sibling(root, path, path + coding.suffix, coding, decode=not is_ours)


# --- processes ------------------------------------------------------------------------------------------------------


def work_off(jobs: Sequence[Job], process_count: int) -> Iterator[Outcome]:
    """Do all jobs, the largest first, in several processes; outcomes as they come. Raises BrokenProcessPool."""
    process_count = min(process_count, len(jobs))
    if process_count <= 1:
        yield from map(write_copy, jobs)
        return
    executor = ProcessPoolExecutor(
        process_count, multiprocessing.get_context("fork"), initializer=enter_process, initargs=(os.getpid(),)
    )
    try:
        # The processes start with the first job: no signal may find them before their handlers stand.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            waiting = [executor.submit(write_copy, job) for job in jobs]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        for future in as_completed(waiting):
            yield future.result()
    except BaseException:
        processes = multiprocessing.active_children()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(END_TIMEOUT_S)
            process.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def enter_process(parent: int) -> None:
    """The first thing in each process: Ctrl+C is the parent's to answer, and nothing outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_process)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    if os.getppid() != parent:  # it ended before it could be noticed
        os._exit(1)


def end_process(number: int, frame: object) -> None:
    """End on a signal at once: an exception would be taken for the outcome of a job."""
    remove_unfinished()
    os._exit(1)


@contextmanager
def show_progress(count: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; call what comes out with the number of steps made."""
    if count and sys.stderr.isatty():
        import click

        with click.progressbar(length=count, label="compressing", file=sys.stderr) as bar:
            yield bar.update
    else:
        yield lambda steps: None


def report(survey: Survey, outcomes: Iterable[Outcome], where: str, stopped: str) -> int:
    """Say what was done; the exit code. where: the site.  stopped: why not all of it was done, or ''."""
    import click

    sums = {coding.token: (Sum(), survey.kept.get(coding.token, Sum())) for coding in CODINGS}
    larger = dict.fromkeys(sums, 0)
    problems = list(survey.problems)
    for outcome in outcomes:
        token = outcome.job.token
        if outcome.result is Result.WRITTEN:
            sums[token][0].add(outcome.size, outcome.job.size)
        elif outcome.result is Result.LARGER:
            larger[token] += 1
        else:
            problems.append(f"{outcome.job.path}: {outcome.problem or outcome.result.value}")
    click.echo(f"{where}: {count_of(survey.file_count, 'file')} worth compressing, {show_size(survey.file_size)}")
    for coding in CODINGS:
        written, kept = sums[coding.token]
        line = f"  {coding.suffix.decode('ascii'):<5}"
        if coding.library() is None:
            click.echo(f"{line} not written: {coding.package} is not installed ({EXTRA})")
            continue
        size, file_size = written.size + kept.size, written.file_size + kept.file_size
        share = f", {100 * size / file_size:.0f} % of {show_size(file_size)}" if file_size else ""
        counts = f"{written.count} written, {kept.count} kept, {larger[coding.token]} would not be smaller"
        click.echo(f"{line} {counts}; {show_size(size)}{share}")
    for path in survey.orphans:
        click.echo(f"{show_path(path)}: there is no file that it is a copy of; remove it if it is a leftover")
    for problem in problems:
        click.echo(problem, err=True)
    if stopped:
        click.echo(f"{stopped}; run it again for the rest", err=True)
    return 1 if problems or stopped else 0
