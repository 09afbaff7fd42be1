"""Measures claims again: python -m workbench.claims [NAME ...] [--list] [--folder FOLDER]"""

import argparse

from workbench import check, claims


def main(arguments=None) -> None:
    """Measures the claims named, or all; writes and prints each finding as it comes."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.claims",
        description="Measures again what the papers claim, and writes what comes out. Some claims take minutes.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims to measure, such as E1 (all)")
    parser.add_argument("--list", action="store_true", help="only tell which claims there are")
    parser.add_argument("--folder", default=claims.FOLDER, help="where findings go (data/claims)")
    options = parser.parse_args(arguments)
    known = claims.list_claims()
    if options.list:
        for claim in known.values():
            print(f"{claim.name}: {claim.says} ({claim.source})")
        return
    try:
        wanted = [known[check.choice(name, "NAME", known)] for name in options.names or known]
    except ValueError as error:
        raise SystemExit(f"ValueError: {error}") from error
    missing = []
    for claim in wanted:
        try:
            finding = claims.measure(claim)
        except check.NotAvailable as error:  # a model that has not been trained here; others may have been
            print(f"{claim.name} not measured: {error}", flush=True)
            missing.append(claim.name)
            continue
        finding.save(options.folder)
        print(finding, flush=True)
    if missing:
        raise SystemExit(f"Not measured: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
