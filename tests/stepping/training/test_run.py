"""`TrainingRun` on a network of a few hundred parameters: both ways bit-equal, bounded memory, stops, branches."""

import itertools
import threading

import pytest
import torch

from tests.stepping.training.toy import SHAPE, Net, Toy, same
from workbench.stepping import timeline
from workbench.stepping.training import TrainingRun
from workbench.stepping.training.memory import Snapshot, Snapshots
from workbench.stepping.training.state import TrainingSettings


@pytest.fixture
def task():
    return Toy()


@pytest.fixture
def run(task):
    return TrainingRun(task, learning_rate=1e-2, batch_size=3)


def weights(task) -> dict[str, torch.Tensor]:
    """What the model holds, as whoever samples from it would find it."""
    found = dict(task.objective.named_parameters()) | dict(task.objective.named_buffers())
    return {name: value.detach().clone() for name, value in found.items()}


# Stepping


def test_it_is_the_training_loop_that_everybody_writes(task, run):
    """The same batches by hand: AdamW, gradient cut to norm 1, nothing else."""
    other = Net()
    mine = [p for p in other.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(mine, 1e-2, betas=(0.9, 0.99), weight_decay=1e-2)
    losses = []
    for step in range(4):
        other.train()
        loss = other(task.batch([[0, step, item] for item in range(3)]))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mine, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    run.run(4)
    assert run.history("loss") == losses
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), task.objective.parameters(), strict=True))
    assert torch.equal(other.norm.running_mean, task.objective.norm.running_mean)


def test_what_a_state_tells(task, run):
    state = run.step(2)
    assert (state.i, run.i, run.recorded, run.total) == (2, 2, 2, None)
    assert state is run.state
    assert state.loss == pytest.approx(state.loss_per_sample.mean().item(), rel=1e-5)
    assert state.losses == {"loss": state.loss, "double": pytest.approx(2 * state.loss)}
    assert state.loss_per_sample.shape == state.t.shape == (3,)
    assert state.loss_per_cell.shape == (3, *SHAPE[1:])
    assert state.learning_rate == 1e-2
    assert set(state.gradient_norms) == {"first", "again", "norm", "last"}  # the frozen layer has none
    assert state.gradient_norm == pytest.approx(sum(v**2 for v in state.gradient_norms.values()) ** 0.5)
    before, after = run.weights(1), run.weights(2)
    change = torch.cat([(after[n] - before[n]).flatten() for n in ("first.weight", "first.bias")]).norm().item()
    assert state.update_norms["first"] == pytest.approx(change, rel=1e-4)
    assert state.weight_norms["last"] == pytest.approx(
        torch.cat([after["last.weight"].flatten(), after["last.bias"]]).norm().item(), rel=1e-5
    )
    assert state.update_norm == pytest.approx(sum(v**2 for v in state.update_norms.values()) ** 0.5)
    assert state.fault is None
    assert len(state.digest) == 32
    with pytest.raises(KeyError):
        state.update_norms["frozen"]
    with pytest.raises(AttributeError):
        state.loss = 0.0
    beginning = run.states[0]
    assert (beginning.i, beginning.loss, beginning.batch, beginning.update_norm) == (0, None, None, None)


def test_the_batch_comes_back_on_demand_and_is_not_kept(task, run):
    state = run.step(3)
    asked = task.asked
    batch = state.batch
    assert task.asked == asked + 1
    wanted = task.batch([[0, 2, 0], [0, 2, 1], [0, 2, 2]])
    assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
    assert torch.equal(state.t, wanted["t"])
    assert state.mask is None
    assert state.nbytes < 6000


def test_a_second_run_of_a_task_begins_where_the_first_began(task, run):
    run.step(3)
    again = TrainingRun(task, learning_rate=1e-2, batch_size=3)
    again.step(3)
    assert again.history("loss") == run.history("loss")


def test_nothing_else_in_the_process_is_touched(task):
    """Global randomness, training mode and hooks are as before, and dropout is the same when computed again."""
    task = Toy(dropout=0.5)
    run = TrainingRun(task, learning_rate=1e-2, batch_size=3, memory=0)
    state = torch.random.get_rng_state()
    run.step(4)
    run.goto(2)
    run.goto(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in task.objective.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in task.objective.modules())
    assert all(p.grad is None for p in task.objective.parameters())
    assert type(task.objective).forward is Net.forward
    assert "forward" not in task.objective.__dict__


# Back and forth


def test_the_model_has_the_weights_of_the_cursor_after_every_move(task, run):
    seen = [weights(task)]
    for _ in range(6):
        run.step()
        seen.append(weights(task))
    calls = task.objective.calls
    run.back(2)
    assert same(weights(task), seen[4])
    run.goto(0)
    assert same(weights(task), seen[0])
    run.step(5)
    assert same(weights(task), seen[5])
    assert task.objective.calls == calls  # there is a snapshot of each step: nothing was computed
    run.step(2)
    assert run.i == 7
    assert task.objective.calls == calls + 1
    assert same(run.weights(3), {n: seen[3][n] for n in run.weights()})
    assert run.i == 7


@pytest.mark.parametrize(("memory", "every"), [(256, 1), (256, 4), (0, 1), (0.02, 1)])
def test_back_then_forward_is_bit_equal_whatever_is_kept(memory, every):
    whole, task = TrainingRun(Toy(), learning_rate=1e-2, batch_size=3), Toy()
    run = TrainingRun(task, learning_rate=1e-2, batch_size=3, memory=memory, snapshot_every=every)
    whole.step(14)
    run.step(9)
    for i in (8, 3, 4, 0, 7):
        run.goto(i)
        assert same(run.weights(), whole.weights(i))
        assert same(weights(task), weights_at(whole, i))
    run.step(7)
    assert run.i == run.recorded == 14
    assert [s.digest for s in run.states] == [s.digest for s in whole.states]
    assert run.history("loss") == whole.history("loss")
    assert same(weights(task), weights_at(whole, 14))


def weights_at(run, i):
    with run.applied(i):
        return weights(run.task)


def test_memory_is_bounded_and_told(task):
    one = TrainingRun(task)._snapshots.nbytes
    run = TrainingRun(task, memory=30 * one / 2**20, batch_size=2)  # with moments a snapshot is three times as large
    run.step(60)
    assert run._snapshots.nbytes <= run.memory * 2**20
    assert 6 <= len(run.snapshots) <= 11
    assert run.snapshots[0] == 0
    assert run.snapshots[-1] == 60
    assert 59 in run.snapshots  # close together about the cursor
    assert f"{len(run.snapshots)} snapshots 0.1 of 0.05" in repr(run)
    assert run.nbytes == run._snapshots.nbytes + sum(s.nbytes for s in run.states)
    run.goto(30)
    assert {29, 30} & set(run.snapshots) == {29, 30}  # they follow the cursor
    calls = task.objective.calls
    run.back()
    assert task.objective.calls == calls
    assert {0, 60} <= set(run.snapshots)


def test_thinning_leaves_no_large_gaps():
    """1,000 steps in 30 snapshots: no gap beyond a few times 1000 / 30, and the nearest steps are all there."""
    snapshots = Snapshots(30 * 4, 1)
    for i in range(1001):
        snapshots.add(Snapshot(i, {"w": torch.zeros(1)}, {}, {}))
        snapshots.thin(i, i)
    steps = snapshots.steps
    assert len(steps) == 30
    assert {0, *range(994, 1001)} <= set(steps)
    assert max(b - a for a, b in itertools.pairwise(steps)) < 4 * 1000 / 30


def test_weights_that_are_not_the_same_again_are_told(task):
    """An objective that draws of its own: exact=True refuses and stays where it was, exact=False says so."""
    run = TrainingRun(task, batch_size=2, learning_rate=1e-2, memory=0)
    task.objective.noise_at = (2,)
    run.step(4)
    there = weights(task)
    run.goto(4)
    with pytest.raises(RuntimeError, match=r"step 3 computed again gave other weights .* depend on its batch only"):
        run.goto(3)
    assert run.i == 4
    assert same(weights(task), there)
    run.goto(0)
    loose = TrainingRun(Toy(), batch_size=2, learning_rate=1e-2, memory=0, exact=False)
    loose.task.objective.noise_at = (2,)
    loose.step(4)
    loose.goto(3)
    assert "step 3 computed again" in repr(loose)
    loose.goto(4)
    assert loose.state.digest == loose._learner.capture(4).digest()  # the newest is kept, not computed again


def test_the_end_of_a_run(task):
    run = TrainingRun(task, steps=3, schedule="cosine", warmup=2, learning_rate=1.0, batch_size=1)
    run.step(10)
    assert run.done
    assert run.history("learning_rate") == pytest.approx([0.5, 0.02 + 0.98 * 0.75, 0.02 + 0.98 * 0.25])
    with pytest.raises(RuntimeError, match="all 3 steps are done"):
        run.step()
    with pytest.raises(ValueError, match="from 0 to 3"):
        run.goto(4)
    with pytest.raises(ValueError, match="n is 5, expected at most 3"):
        run.back(5)


# Stopping


def test_breakpoints_and_run_until(run):
    run.break_at(step=3)
    run.break_at(when=lambda state: state.i == 5)
    assert run.run(10).i == 3
    assert run.stopped == "breakpoint: step 3"
    assert run.run(10).i == 5
    assert run.goto(7).i == 7
    run.goto(0)
    assert run.step(7).i == 3  # also among recorded steps
    assert run.run_until(lambda state: state.i == 9).i == 5
    assert run.run_until(lambda state: state.i == 9).i == 9


def test_watches(run):
    run.watch("loss spike", ratio=0.5)
    run.step(10)
    assert run.i == 2
    assert "loss spike: loss is" in run.stopped
    assert "times the median before" in run.stopped
    run.watches.clear()
    run.watch("gradient norm", above=1e-6)
    run.step(3)
    assert "gradient norm: gradient_norm is" in run.stopped
    assert run.i == 3
    run.watches.clear()
    run.watch("double", above=0.0)
    assert run.step(3).i == 4
    run.watches.clear()

    def odd(before, after):
        return after.i == 6

    run.watch(odd)
    run.watch(lambda before, after: "seven" if after.i == 7 else None)
    assert run.step(9).i == 6
    assert run.stopped == "watch: odd"
    assert run.step(9).i == 7
    assert run.stopped == "watch: seven"


def test_a_nan_stops_before_the_weights_are_spoilt(task, run):
    task.objective.nan_at = 3
    assert run.run(10).i == 4
    assert "the loss is nan: the optimiser was not called" in run.state.fault
    assert run.stopped == f"watch: {run.state.fault}"
    assert run.state.loss != run.state.loss
    assert run.state.update_norm == 0
    assert run.states[4].digest == run.states[3].digest
    assert all(torch.isfinite(value).all() for value in run.weights().values())
    run.step(2)  # goes on with the next batch
    assert run.state.fault is None
    assert all(torch.isfinite(value).all() for value in run.weights().values())
    run.goto(0)
    assert run.goto(6).loss > 0


def test_an_infinite_gradient_counts_as_well(task, run):
    task.objective.last.weight.register_hook(lambda grad: grad * float("inf"))
    run = TrainingRun(task)
    run._learner.parameters["last.weight"].register_hook(lambda grad: grad * float("inf"))
    run.step()
    assert "the gradient's norm is" in run.state.fault


# Faults and interrupts


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken objective")])
def test_interrupted_it_stands_at_its_last_complete_step(task, run, error):
    run.step(3)
    there = weights(task)
    task.objective.fail_at = (task.objective.calls + 2, error)
    with pytest.raises(type(error)):
        run.run(5)
    assert run.i == run.recorded == 4
    assert not same(weights(task), there)
    assert same(weights(task), weights_at(run, 4))
    assert not any(module.training for module in task.objective.modules())
    task.objective.fail_at = None
    run.run(2)
    whole = TrainingRun(Toy(), learning_rate=1e-2, batch_size=3)
    whole.run(6)
    assert run.history("loss") == whole.history("loss")
    assert run.state.digest == whole.state.digest


def test_interrupted_in_the_optimiser(task, run, monkeypatch):
    run.step(2)
    there, step = weights(task), run._learner.optimizer.step

    def half(*arguments):
        with torch.no_grad():
            run._learner.parameters["first.weight"].add_(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(run._learner.optimizer, "step", half)
    with pytest.raises(KeyboardInterrupt):
        run.step()
    assert (run.i, run.recorded) == (2, 2)
    assert same(weights(task), there)
    monkeypatch.setattr(run._learner.optimizer, "step", step)
    run.step()
    whole = TrainingRun(Toy(), learning_rate=1e-2, batch_size=3)
    whole.run(3)
    assert run.state.digest == whole.state.digest


def test_interrupted_on_the_way_back(task):
    run = TrainingRun(task, learning_rate=1e-2, batch_size=3, memory=0)
    run.step(6)
    there = weights(task)
    task.objective.fail_at = (task.objective.calls + 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run.goto(4)
    assert run.i == 6
    assert same(weights(task), there)
    task.objective.fail_at = None
    run.goto(4)
    assert run.i == 4


def test_a_predicate_that_fails(run):
    run.break_at(when=lambda state: state.i / (state.i - 2))
    run.breakpoints[0] = type(run.breakpoints[0])("bad", lambda state: 1 / (state.i - 2) < -9)
    with pytest.raises(ZeroDivisionError):
        run.run(5)
    assert run.i == run.recorded == 2


def test_two_threads_do_not_move_at_once(run, monkeypatch):
    monkeypatch.setattr(timeline, "PATIENCE", 0.05)
    errors = []

    def other():
        try:
            run.step()
        except RuntimeError as error:
            errors.append(str(error))

    with run._moving():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert errors == ["a training run is moving in another thread. Wait for it, or pause it."]
    assert run.i == 0


# Branches


def test_an_unchanged_branch_is_bit_equal_and_the_parent_untouched(task, run):
    run.step(8)
    there = weights(task)
    fork = run.branch(at=3)
    assert same(weights(task), there)  # the model is the parent's until the branch moves
    assert (fork.i, fork.recorded, fork.at, fork.parent, fork.changes) == (3, 3, 3, run, {})
    fork.step(5)
    assert [s.digest for s in fork.states] == [s.digest for s in run.states]
    assert same(weights(task), there)
    fork.step(2)
    assert run.i == run.recorded == 8
    assert not same(weights(task), there)  # now it is the branch's
    assert run.module is task.objective
    assert same(weights(task), there)  # looked at, it is the parent's again


def test_branches_with_other_settings(run):
    run.step(4)
    forks = {
        "rate": run.branch(at=2, lr=1e-3),
        "order": run.branch(at=2, seed=5),
        "batch": run.branch(at=2, batch_size=5),
        "decay": run.branch(at=2, weight_decay=0.5, clip=None),
    }
    for fork in forks.values():
        fork.step(2)
        assert fork.state.digest != run.state.digest
        assert [s.digest for s in fork.states[:3]] == [s.digest for s in run.states[:3]]
    assert forks["rate"].states[3].loss == run.states[3].loss  # its first loss is of the same weights and batch
    assert forks["order"].states[3].loss != run.states[3].loss
    assert forks["batch"].state.t.shape == (5,)
    assert "run.1 at 2: lr=0.001" in run.tree()
    assert run.state.digest == run._learner.capture(4).digest()


def test_a_fused_optimiser_makes_the_same_updates_and_goes_back_to_the_bit(task, run):
    run.step(4)
    fork = run.branch(at=2, fused=True)
    fork.step(2)
    plain, fused = run.weights(4), fork.weights(4)
    plain.pop("first.bias")  # normalised away after it: its gradient is nothing but rounding
    assert all(torch.allclose(plain[name], fused[name], rtol=1e-5, atol=1e-6) for name in plain)
    digest = fork.state.digest
    fork.back(2)
    assert fork.step(2).digest == digest
    with pytest.raises(TypeError, match="fused is 1, expected True or False"):
        run.branch(at=2, fused=1)


def test_two_runs_take_turns_on_one_model(task, run):
    alone = [TrainingRun(Toy(), learning_rate=rate, batch_size=3) for rate in (1e-2, 1e-3)]
    fork = run.branch(at=0, lr=1e-3)
    for _ in range(4):
        run.step()
        fork.step()
    for a, b in zip(alone, (run, fork), strict=True):
        a.step(4)
        assert a.history("loss") == b.history("loss")
        assert same(a.weights(), b.weights())
    with run.applied() as module:
        inside = weights(task)
        assert module is task.objective
        with fork.applied(2):
            assert not same(weights(task), inside)
        assert same(weights(task), inside)
    assert fork.i == 4


def test_a_branch_of_a_step_between_snapshots_and_of_a_branch(task):
    run = TrainingRun(task, batch_size=2, learning_rate=1e-2, memory=0)
    run.step(6)
    fork = run.branch(at=4)
    assert run.i == 6
    second = fork.branch(seed=3)
    assert second.name == "run.1.1"
    second.step(2)
    fork.step(2)
    assert fork.state.digest == run.state.digest
    assert second.state.digest != run.state.digest
    with pytest.raises(ValueError, match=r"expected at least 4: run.1 begins there.*run.parent.goto\(3\)"):
        fork.back(3)
    assert run.branch(at=0, memory=7, exact=False).memory == 7


# Reading


@pytest.mark.long
def test_history_and_loss_by_t(run):
    run.step(12)
    assert run.history("gradient_norm") == [s.gradient_norm for s in run.states[1:]]
    assert len(run.history("double")) == 12
    found = run.loss_by_t(bins=4)
    t = torch.cat([s.t for s in run.states[1:]]).double()
    loss = torch.cat([s.loss_per_sample for s in run.states[1:]]).double()
    assert sum(found["count"]) == 36
    low = t < (t.max() + 1) / 4
    assert found["loss"][0] == pytest.approx(loss[low].mean().item())
    assert sum(run.loss_by_t(4, last=2)["count"]) == 6
    for what in ("loss", "update_norm", "double", "loss_by_t"):
        assert run.plot(what)._repr_mimebundle_()


# Messages


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda run: TrainingRun(run.task, rate=1), "rate is no setting, expected one of: learning_rate, schedule"),
        (lambda run: TrainingRun(run.task, lr=1, learning_rate=2), "both given"),
        (lambda run: TrainingRun(run.task, batch_size=0), "batch_size is 0, expected a whole number of at least 1"),
        (
            lambda run: TrainingRun(run.task, schedule="linear"),
            "schedule is 'linear', expected one of: constant, cosine",
        ),
        (lambda run: TrainingSettings(schedule="cosine"), "where shall it end"),
        (lambda run: TrainingRun(run.task, memory=-1), "memory is -1"),
        (lambda run: run.branch(at=5), "at is 5, expected a whole number from 0 to 0"),
        (lambda run: run.branch(rank=4), "rank cannot be changed, expected one of: learning_rate"),
        (lambda run: run.branch(lr=-1), "learning_rate is -1"),
        (lambda run: run.watch("gradient norm"), "how much is too much"),
        (lambda run: run.watch("loss", above=-1), "above is -1"),
        (lambda run: run.break_at(t=400), "t is given, but the steps of this run have none"),
        (lambda run: run.break_at(sigma=4), "sigma is given, but the steps of this run have none"),
        (lambda run: run.history("los"), "name is 'los', expected one of: loss"),
        (lambda run: run.plot("gradient_norms"), "what is 'gradient_norms', expected one of"),
        (lambda run: run.plot(), "no step tells loss"),
        (lambda run: run.loss_by_t(), "no step tells t and loss per sample"),
        (lambda run: run.weights(1), "i is 1, expected a whole number from 0 to 0"),
        (lambda run: run.break_at(), "exactly one of step"),
    ],
)
def test_messages(run, action, message):
    with pytest.raises(ValueError, match=message):
        action(run)
    assert run.branches == []


def test_a_task_without_weights_or_pipeline(task, run):
    with pytest.raises(AttributeError, match="task 'toy' has no pipeline; look at run.module"):
        run.pipe  # noqa: B018
    frozen = Toy()
    frozen.objective.requires_grad_(False)
    with pytest.raises(ValueError, match="'toy' has nothing to train"):
        TrainingRun(frozen)


def test_watching_an_unknown_number(run):
    run.step()
    with pytest.raises(ValueError, match="what is 'speed', expected one of: nan, loss spike"):
        run.watch("speed", above=1)
