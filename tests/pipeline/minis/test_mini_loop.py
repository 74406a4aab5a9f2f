"""The training loop on a two-weight model: a stopped run continues exactly, and says what it refuses."""

import json

import pytest

torch = pytest.importorskip("torch")

from pipeline.minis.loop import CURVE, DivergedError, MiniRecipe, ResumeError, Run, lr_at, start  # noqa: E402

RECIPE = MiniRecipe(
    steps=12, batch_size=4, lr=0.05, warmup_steps=3, weight_decay=0.1, log_every=2, save_every=5, bf16=False
)


def recipe(**changes) -> MiniRecipe:
    return MiniRecipe(**({field: getattr(RECIPE, field) for field in RECIPE.__dataclass_fields__} | changes))


def trained(folder, chosen, *, stops):
    for stop in stops:
        start(chosen)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

        def losses_at(step, model=model):
            data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            loss = (model(data).squeeze(1) - data.sum(dim=1)).pow(2).mean()
            return {"loss": loss}

        Run(model, chosen, folder).train(losses_at, stop=stop)
    return model.state_dict()


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_stopped_run_continues_exactly(tmp_path, ema_decay):
    chosen = recipe(ema_decay=ema_decay)
    straight = trained(tmp_path / "straight", chosen, stops=[None])
    stopped = trained(tmp_path / "stopped", chosen, stops=[7, 10, None])
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)
    assert steps(tmp_path / "straight") == [2, 4, 6, 8, 10, 12]


def test_the_average_is_kept_where_asked_for(tmp_path):
    last = trained(tmp_path / "last", recipe(), stops=[None])
    average = trained(tmp_path / "average", recipe(ema_decay=0.9), stops=[None])
    assert not torch.equal(last["0.weight"], average["0.weight"])


def steps(folder) -> list[int]:
    return [json.loads(row)["step"] for row in (folder / CURVE).read_text().splitlines()]


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path):
    """A run killed between checkpoints has logged steps that it takes again."""
    trained(tmp_path, recipe(), stops=[6])
    with (tmp_path / CURVE).open("a") as curve:
        curve.write('{"step": 8, "loss": 1.0}\n{"step": 10, "lo')
    trained(tmp_path, recipe(), stops=[None])
    assert steps(tmp_path) == [2, 4, 6, 8, 10, 12]


def test_another_recipe_is_refused(tmp_path):
    trained(tmp_path, recipe(), stops=[6])
    with pytest.raises(ResumeError, match="another recipe"):
        trained(tmp_path, recipe(lr=0.1), stops=[None])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(DivergedError, match="nan at step 0"):
        Run(model, RECIPE, tmp_path).train(lambda step: {"loss": model.weight.sum() * float("nan")})


def test_the_learning_rate_rises_and_falls():
    rates = [lr_at(RECIPE, step) for step in range(13)]
    assert rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[12] == pytest.approx(0.0005)
