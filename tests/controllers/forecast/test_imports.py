"""The process that publishes stays small: what models are fitted with is never imported there."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.models import MODELS
from controllers.forecast.models.ensemble import Mixture
from controllers.forecast.selection import select

STEP = 1800.0
CODE = """
import pickle, sys
import controllers.forecast.command
from controllers.forecast.almanac import Calendar
from controllers.forecast.predict import outlook

history, fits = pickle.load(open(sys.argv[1], "rb"))
for name, fitted in fits.items():
    made = outlook(history, Calendar(), fitted, history.end + 20, quantiles=(0.1, 0.9), valid_seconds=900)
    assert made.forecast.model == name
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"sklearn", "scipy", "statsmodels", "pandas", "distributed", "dask", "joblib", "matplotlib"}))
"""


def test_forecasts_of_every_model_import_nothing_that_only_fitting_needs(make: SimpleNamespace, tmp_path: Path) -> None:
    minutes = np.arange(9.0 * 48) * 30
    history = make.grid(make.poisson(make.daily(minutes)), STEP)
    naive = {name: model for name, model in MODELS.items() if not model.members and not model.heavy}
    fitted = select(history, Calendar(), (1800, 3600), naive)
    learned = {name: model.fit(history, "UTC", fitted.steps) for name, model in MODELS.items() if not model.members}
    even = np.ones(fitted.steps)
    for name, model in MODELS.items():
        if model.members:
            learned[name] = Mixture({each: learned[each] for each in model.members}, dict.fromkeys(model.members, even))
    fits = {name: replace(fitted, model=name, learned=learned[name]) for name in MODELS}
    assert {name for name, model in MODELS.items() if model.heavy} <= set(fits)
    file = tmp_path / "fits.pickle"
    file.write_bytes(pickle.dumps((history, fits)))
    ran = subprocess.run([sys.executable, "-c", CODE, str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ""
