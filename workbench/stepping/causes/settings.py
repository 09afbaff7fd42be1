"""What the runs were made with: versions, precision, weights, the scheduler and its settings."""

from workbench.stepping.causes.pair import Pair, Told
from workbench.stepping.causes.sentences import both


def versions(pair: Pair) -> Told:
    """Other versions of the libraries, or another processor."""
    a, b = pair.facts("versions")
    other = {n: (a.get(n), b.get(n)) for n in {*a, *b} if a.get(n) != b.get(n)}
    machines = pair.a.facts.get("platform"), pair.b.facts.get("platform")
    if machines[0] != machines[1]:
        other["platform"] = machines
    if not other:
        return None
    told = ", ".join(f"{n} {x} and {y}" for n, (x, y) in sorted(other.items()))
    return f"nothing else differs, but the runs were made with other versions: {told}.", {"versions": other}


def dtype(pair: Pair) -> Told:
    """Networks that compute in another precision, or on another device."""
    a, b = pair.facts("networks")
    for name in a.keys() & b.keys():
        for what in ("dtype", "device"):
            if a[name][what] != b[name][what]:
                return (
                    f"{name} computes in another {what}: {a[name][what]} in a, {b[name][what]} in b.",
                    {what: (a[name][what], b[name][what])},
                )
    return None


def weights(pair: Pair) -> Told:
    """Networks whose weights differ: an adapter loaded in one run only, or other weights altogether."""
    a, b = pair.facts("networks")
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x["adapters"] != y["adapters"]:
            with_one, names = ("a", x["adapters"]) if x["adapters"] else ("b", y["adapters"])
            return f"{name} has the LoRA adapter {', '.join(names)} loaded in {with_one} only.", {"network": name}
        if x["weights"] != y["weights"]:
            return (
                f"the weights of {name} differ: another model, or a LoRA that is fused or missing in one run.",
                {"network": name},
            )
    return None


def scheduler_class(pair: Pair) -> Told:
    """Another solver altogether."""
    a, b = pair.facts("schedulers")
    for name in a.keys() & b.keys():
        if a[name]["class"] != b[name]["class"]:
            return f"another scheduler: {a[name]['class']} in a, {b[name]['class']} in b.", {"scheduler": name}
    return None


def scheduler_config(pair: Pair) -> Told:
    """The scheduler set up otherwise."""
    other = pair.differing_config()
    return (f"the scheduler is set up otherwise: {both(other)}.", {"config": other}) if other else None


def prediction_type(pair: Pair) -> Told:
    """The network's output taken for another kind of prediction."""
    other = pair.differing_config({"prediction_type"})
    if not other:
        return None
    x, y = other["prediction_type"]
    return f"wrong prediction_type: the scheduler takes the prediction for {x} in a, for {y} in b.", other


def noise_schedule(pair: Pair) -> Told:
    """Another alpha or beta schedule: set up so, or tampered with."""
    a, b = pair.facts("schedulers")
    moments = [moment for moment in (pair.moment_a, pair.moment_b) if moment]
    levels = [moment.levels for moment in moments]
    apart = len(moments) == 2 and levels[0] != levels[1]
    for name in a.keys() & b.keys():
        if a[name]["tables"] != b[name]["tables"] or apart:
            betas = pair.differing_config({"beta_start", "beta_end", "beta_schedule", "trained_betas",
                                           "rescale_betas_zero_snr"})  # fmt: skip
            at = ""
            if apart:
                (x, _), (y, _) = levels
                at = f" At t = {moments[0].t:g} the picture's share is {x:.4f} in a, {y:.4f} in b."
            return (
                f"another alpha or beta schedule: {both(betas) or 'the tables differ though the settings agree'}.{at}",
                {"levels": levels, "config": betas},
            )
    return None


def eta(pair: Pair) -> Told:
    """Another eta: more or less noise put back in each step."""
    x, y = pair.argument("eta")
    return None if x == y else (f"another eta: {x} in a, {y} in b.", {"eta": (x, y)})
