"""What this course asks of nbgrader beyond what it does by itself; `nbgrader_config.py` puts each class in its place.

nbgrader takes a test cell without output for passed, one with a warning for failed, and a number in its last line for
points. It shows hidden tests in the feedback, and gives up on a submission whose kernel dies. Here a test counts when
it has run to its end, and whatever a submission does becomes a remark for the instructor (`course.py report`).
"""

import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import psutil
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode, from_dict
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.plugins import BasePlugin
from nbgrader.preprocessors import Execute, NbGraderPreprocessor, OverwriteCells
from traitlets import Float, Integer

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?", re.S)
LINK = re.compile(r"\[([^]]+)\]\((?!https?:)[^)]+\.(?:ipynb|md)\)")

ANSWERED_WRONG = (
    "CheckFailed",
    "AssertionError",
    "NotImplementedError",
    "Stopped",
)  # no cause for a remark, or it has one

INTERRUPTED = ("CellTimeoutError", "KeyboardInterrupt")

# Run before a test: the checks as they lie on the disk, whatever the notebook has put in their place.
FRESH = """import sys as _sys
for _name in [name for name in _sys.modules if name.startswith("ttqlib.check")]:
    del _sys.modules[_name]
if "ttqlib" in _sys.modules:
    import ttqlib as ttq, ttqlib.check
"""


def is_test(cell: NotebookNode) -> bool:
    """Whether it is graded by running it."""
    return cell.cell_type == "code" and utils.is_grade(cell) and not utils.is_solution(cell)


def error(name: str, says: str) -> NotebookNode:
    """An error as a notebook stores it, in one line."""
    return new_output("error", ename=name, evalue=says, traceback=[f"{name}: {says}".removesuffix(": ")])


def remark(notebook: NotebookNode, *lines: str) -> None:
    """Keeps a line for the instructor in the graded notebook; students do not see it in their feedback."""
    notebook.metadata.setdefault("ttq", NotebookNode(remarks=[])).remarks.extend(lines)


class PlainLinks(NbGraderPreprocessor):
    """Students' copies lie anywhere: links to chapters would lead nowhere, so their text stays alone."""

    def preprocess_cell(self, cell, resources, cell_index):
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1", cell.source)
        return cell, resources


class Mend(NbGraderPreprocessor):
    """Gives every graded cell of a submission back the form in which it was handed out, and says what was changed.

    Missing tests are put back at the end. nbgrader can put them back, too, but fails where their neighbour is missing.
    """

    def preprocess(self, nb, resources):
        about = resources["nbgrader"]
        nb.metadata.pop("ttq", None)
        counts = [cell.execution_count for cell in nb.cells if cell.get("execution_count")]
        if counts != sorted(counts):
            remark(nb, "it was not run from top to bottom; it is graded in that order")
        with Gradebook(about["db_url"]) as book:
            handed_out = book.find_notebook(about["notebook"], about["assignment"])
            sources = {cell.name: cell for cell in handed_out.source_cells}
            points = {cell.name: cell.max_score for cell in handed_out.grade_cells}
            answers = {cell.name for cell in handed_out.solution_cells}
            found = [name for cell in nb.cells if (name := self._restore(nb, cell, sources, points, answers))]
            for name in [name for name in sources if name not in found]:
                self._put_back(nb, sources[name], points.get(name), name in answers)
        self._one_of_each(nb)
        return nb, resources

    def _one_of_each(self, nb) -> None:
        """Of copies of a cell the last one counts; nbgrader, left with them, ends for all submissions that follow."""
        seen = set()
        for cell in reversed(nb.cells):
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name in seen:
                del cell.metadata["nbgrader"]
                remark(nb, f"the cell {name} is there more than once: the last one counts")
            elif name:
                seen.add(name)

    def _put_back(self, nb, source, points, is_answer) -> None:
        """A missing cell: a graded one to the end, one to be run first to the beginning; an answer stays missing."""
        if points is None and is_answer:
            remark(nb, f"the cell {source.name}, for an answer, is missing")
            return
        remark(nb, f"the cell {source.name} was missing: put back at the {'end' if points else 'beginning'}")
        cell = from_dict(OverwriteCells().missing_cell_transform(source, points or 0, is_solution=is_answer))
        if points is None:
            cell.metadata.nbgrader.update(grade=False)
            cell.metadata.nbgrader.pop("points")
        nb.cells.insert(len(nb.cells) if points else 0, cell)

    def _restore(self, nb, cell, sources, points, answers) -> str | None:
        """Sets what a cell is; its name, if it is one that was handed out."""
        about = cell.metadata.pop("nbgrader", None)
        name = about.get("grade_id") if isinstance(about, dict) else None
        if name not in sources:
            if about:
                remark(nb, f"a cell with the name {name} was not handed out: it is not graded")
            return None
        source = sources[name]
        if source.locked and cell.source.strip() != HIDDEN.sub("", source.source).strip():
            remark(nb, f"the cell {name} was changed: put back as it was")
        given = {"schema_version": 3, "grade_id": name, "task": False, "locked": source.locked}
        given |= {"grade": name in points, "solution": name in answers, "checksum": source.checksum}
        given |= {"points": points[name]} if name in points else {}
        cell.metadata = NotebookNode(nbgrader=NotebookNode(given))  # no tags, such as one that skips the cell
        return name


class WatchedExecute(Execute):
    """Runs a submission in an empty folder, within limits of time, memory and output; a test has to reach its end."""

    whole = Integer(300, help="seconds for the whole notebook").tag(config=True)
    gigabytes = Float(4.0, help="of memory").tag(config=True)
    kept = Integer(100_000, help="characters of a cell's output; what follows is cut").tag(config=True)
    most = Integer(20_000_000, help="characters of a cell's output, at which it is stopped").tag(config=True)

    def preprocess(self, nb, resources, km=None):
        self.stopped, self.deadline = None, time.monotonic() + self.whole
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            resources["metadata"]["path"] = folder
            return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != "code":
            return cell, resources
        source, left = cell.source, self.deadline - time.monotonic()
        if not self.stopped and left < 1:
            self._stop(f"the whole notebook has taken {self.whole} s")
        self.token = secrets.token_hex(8)
        if is_test(cell):
            cell.source = f"{FRESH}{source}\nprint({self.token!r})"
        self.printed, self.timeout = 0, max(1, min(int(left), self.timeout))
        self._run(cell, resources, index)
        cell.source = source
        if is_test(cell):
            judge(cell, self.token)
        self._tell(cell, index)
        return cell, resources

    def _run(self, cell, resources, index) -> None:
        """One cell; where its kernel is gone, or has to go, this and all later cells end in an error that says why."""
        if not self.stopped:
            began, too_long = time.monotonic(), f"a cell took more than {self.timeout} s"
            try:
                with self._memory_watched():
                    super().preprocess_cell(cell, resources, index)
                interrupted = any(out.get("ename") in INTERRUPTED for out in cell.outputs)
                if interrupted and time.monotonic() - began > self.timeout:
                    cell.outputs = [error("TimeOut", too_long)]
                    if not self._answers():
                        self._stop(f"{too_long} and could not be interrupted")
            except CellTimeoutError:
                self._stop(f"{too_long} and could not be interrupted")
            except (DeadKernelError, RuntimeError) as gone:
                self._stop(f"its kernel ended ({gone})")
            if self.stopped:
                remark(self.nb, f"stopped in cell {index + 1}: {self.stopped}")
        if self.stopped:
            cell.outputs = [error("Stopped", self.stopped)]

    def _answers(self) -> bool:
        """Whether the kernel, after an interrupt, takes requests again."""
        request, end = self.kc.kernel_info(), time.monotonic() + 5
        while time.monotonic() < end:
            reply = self._reply(end - time.monotonic())
            if reply and reply["parent_header"].get("msg_id") == request:
                return True
        return False

    def _reply(self, seconds: float) -> dict | None:
        try:
            return run_sync(self.kc.shell_channel.get_msg)(timeout=seconds)
        except Exception:  # queue.Empty, or a channel that has closed
            return None

    def _stop(self, reason: str) -> None:
        """Ends the kernel with its children; the first reason counts."""
        self.stopped = self.stopped or reason
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        try:
            kernel = psutil.Process(self.km.provisioner.pid)
            return [*kernel.children(recursive=True), kernel]
        except (psutil.Error, AttributeError, TypeError, ValueError):
            return []

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        done = Event()

        def watch():
            while not done.wait(0.1):
                used = 0
                for process in self._processes():
                    with suppress(psutil.Error):
                        used += process.memory_info().rss
                if used > self.gigabytes * 2**30:
                    self._stop(f"it used more than {self.gigabytes:g} GB of memory")

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def process_message(self, msg, cell, cell_index):
        """Keeps the beginning of what a cell prints, and stops one that does not end."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result"):
            self.printed += len(str(msg["content"]))
            if self.token in str(msg["content"].get("text", "")[-100:]):  # the end of a test is never cut
                msg["content"]["text"] = f"{self.token}\n" if self.printed > self.kept else msg["content"]["text"]
                return super().process_message(msg, cell, cell_index)
            if self.printed > self.most:
                self._stop(f"a cell printed more than {self.most:,} characters")
            if self.printed > self.kept:
                return None
        return super().process_message(msg, cell, cell_index)

    def _tell(self, cell: NotebookNode, index: int) -> None:
        """Remarks about the outputs of a cell: what a check says of an answer is none."""
        if self.printed > self.kept:
            remark(self.nb, f"cell {index + 1} printed more than {self.kept:,} characters: the rest was cut")
        for out in cell.outputs:
            if out.output_type == "error" and out.ename not in ANSWERED_WRONG:
                where = cell.metadata.get("nbgrader", {}).get("grade_id") or f"cell {index + 1}"
                remark(self.nb, f"{where}: {out.ename}: {' '.join(out.evalue.split())[:200]}".rstrip(": "))


def judge(cell: NotebookNode, token: str) -> None:
    """A test has passed if it has reached its end, where it prints the token; nothing else about its output counts."""
    errors = [out for out in cell.outputs if out.output_type == "error"]
    kept, ended = [], False
    for out in cell.outputs:
        if out.output_type == "stream":
            ended |= token in out.text
            text = out.text.replace(token + "\n", "")
            kept += [new_output("stream", name="stdout", text=text)] if text else []
        elif out.output_type == "display_data":
            kept.append(out)
    if errors:
        kept.append(error(errors[0].ename, " ".join(errors[0].evalue.split())))
    elif not ended:
        kept.append(error("NotRun", "the test did not reach its end"))
    cell.outputs = kept


class HideTests(NbGraderPreprocessor):
    """In the feedback: hidden tests without their source, and without what was printed while they ran."""

    def preprocess_cell(self, cell, resources, cell_index):
        if is_test(cell) and HIDDEN.search(cell.source):
            cell.source = HIDDEN.sub("", cell.source)
            cell.outputs = [out for out in cell.outputs if out.output_type == "error"]
        return cell, resources


class LosesByTheDay(BasePlugin):
    """A share of the points goes for each day, begun, after the due date."""

    share = Float(0.1, help="of the points, for each day that has begun").tag(config=True)

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        days = -(-total_seconds_late // 86400)
        return score * min(1.0, self.share * days)
