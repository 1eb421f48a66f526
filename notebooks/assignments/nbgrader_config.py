"""The settings of this course, all in one place. nbgrader reads them whenever it is called in this folder."""

import os
import sys
import warnings
from pathlib import Path

COURSE = Path(__file__).resolve().parent
sys.path.insert(0, str(COURSE))
import grading  # noqa: E402
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor  # noqa: E402
from nbgrader import preprocessors as its  # noqa: E402

# The hidden tests draw their numbers and variants from this text. Set your own, never hand it out, and change it before
# you grade what was handed in again after feedback.
SEED = "SEED-OF-THIS-COURSE"
SECONDS_FOR_A_CELL = 180
SECONDS_FOR_A_NOTEBOOK = 600
GIGABYTES = 4.0
LOST_BY_THE_DAY = 0.1  # of the points, for each day after the due date that has begun; 0 for no penalty

c = get_config()  # noqa: F821
os.environ["TTQ_COURSE_SEED"] = SEED
os.environ["TQDM_DISABLE"] = "1"

c.Application.log_level = "ERROR"  # what matters stands in `python course.py report`; --debug shows everything
warnings.filterwarnings("ignore", module=r"nbgrader\.")

c.CourseDirectory.root = str(COURSE)
c.CourseDirectory.course_id = COURSE.name

c.GenerateAssignment.preprocessors = [
    grading.PlainLinks,
    its.IncludeHeaderFooter,
    its.LockCells,
    its.ClearSolutions,
    its.ClearOutput,
    its.CheckCellMetadata,
    its.ComputeChecksums,
    its.SaveCells,
    its.ClearHiddenTests,
    its.ClearMarkScheme,
    its.ComputeChecksums,
    its.CheckCellMetadata,
]
c.Autograde.sanitize_preprocessors = [
    grading.Mend,
    its.ClearOutput,
    its.DeduplicateIds,
    its.OverwriteKernelspec,
    its.OverwriteCells,
    its.CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    grading.WatchedExecute,
    its.LimitOutput,
    its.SaveAutoGrades,
    its.AssignLatePenalties,
    its.CheckCellMetadata,
]
c.GenerateFeedback.preprocessors = [its.GetGrades, grading.HideTests, CSSHTMLHeaderPreprocessor]
c.WatchedExecute.extra_arguments = ["--log-level=ERROR"]  # or each kernel warns of its connection
c.WatchedExecute.timeout = SECONDS_FOR_A_CELL
c.WatchedExecute.whole = SECONDS_FOR_A_NOTEBOOK
c.WatchedExecute.gigabytes = GIGABYTES
c.AssignLatePenalties.plugin_class = grading.LosesByTheDay
c.LosesByTheDay.share = LOST_BY_THE_DAY

# Files from mail or a learning platform: ann_a1_arithmetic.ipynb, or ann_2026-03-02_a1_arithmetic.ipynb with the day.
c.FileNameCollectorPlugin.named_regexp = (
    r".*[/\\](?P<student_id>[^/\\]+?)_((?P<timestamp>\d{4}-\d\d-\d\d)_)?(?P<file_id>a\d+_[a-z_]+)"
)
