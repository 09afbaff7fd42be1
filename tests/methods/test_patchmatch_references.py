"""PatchMatch that copies from other pictures too: a canvas of several, and what is completed with it."""

import pytest
import torch

import workbench as wb
from workbench.methods import patchmatch
from workbench.methods.patchmatch import levels
from workbench.methods.patchmatch.field import grow


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()  # as in test_patchmatch
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def complete(image, mask, **options):
    return list(patchmatch.fill(image, mask, **options))


# ---------------------------------------------------------------- the canvas


def test_a_canvas_by_hand():
    pictures = [noise(5, 7), noise(4, 8, 1)]
    parts = [levels.Level(x, torch.zeros_like(x[:, :1])) for x in pictures]
    canvas = levels.side_by_side(parts, unit=4)
    assert canvas.starts == (0, 12)  # 7 columns take 8, and 4 are empty
    assert canvas.size == (5, 24)
    assert torch.equal(canvas.features[..., :7], pictures[0])
    assert torch.equal(canvas.features[..., :4, 12:20], pictures[1])
    expected = torch.ones(1, 1, 5, 24)
    expected[..., :7], expected[..., :4, 12:20] = 0, 0
    assert torch.equal(canvas.mask, expected)
    xy = torch.tensor([[6, 4], [12, 0], [19, 3], [-1, -1]]).T.reshape(1, 2, 1, 4)
    place, picture = canvas.places(patchmatch.Field(xy, torch.zeros(1, 1, 1, 4)))
    assert place[0, :, 0].T.tolist() == [[6, 4], [0, 0], [7, 3], [-1, -1]]
    assert picture.flatten().tolist() == [0, 1, 1, -1]


def test_every_picture_is_halved_as_if_alone_and_stays_in_its_place():
    image, mask = noise(75, 101), wb.mask.box((75, 101), (20, 10, 80, 60))
    references = [noise(63, 49, 1), noise(90, 33, 2)]
    pyramid = levels.make_pyramid(image, mask, 3, 1.0, references)
    assert len(pyramid) == 3  # a fourth size would have too few source patches
    alone = [levels.with_texture(x, torch.zeros_like(x[:, :1]), 3, 1.0) for x in references]
    for n, (level, canvas) in enumerate(pyramid):
        assert canvas.starts == tuple(start // 2**n for start in pyramid[0][1].starts)
        for start, picture in zip(canvas.starts, [level, *alone], strict=True):
            height, width = picture.size
            assert torch.equal(canvas.features[..., :height, start : start + width], picture.features)
            assert torch.equal(canvas.mask[..., :height, start : start + width], picture.mask)
            assert canvas.mask[..., start + width].min() == 1  # an edge that no patch straddles
        alone = [levels.halve(picture) for picture in alone]
    single = levels.make_pyramid(image, mask, 3, 1.0)
    assert all(torch.equal(one.features, two.features) for (one, _), (two, _) in zip(single, pyramid, strict=False))


# ---------------------------------------------------------------- the completion


@pytest.fixture(scope="module")
def scene():
    """A hole over what only the second reference shows; it is larger and shows it 12 to the left and 6 lower."""
    target, mask = astronaut()[..., 20:120, 31:171].clone(), wb.mask.box((100, 140), (40, 20, 80, 60))
    return target, mask, [wb.load_image("brick")[..., :51, :77].contiguous(), astronaut()[..., 14:, 43:].clone()]


def astronaut():
    return wb.load_image("astronaut")[..., 40:180, 130:330]  # a face


@pytest.fixture(scope="module")
def steps(scene):
    target, mask, references = scene
    return complete(target, mask, references=references)


@pytest.mark.long
def test_what_only_a_reference_shows_is_found_there(scene, steps):
    target, mask, _ = scene
    without = complete(target, mask)[-1].image
    better = wb.metrics.psnr(steps[-1].image, target, mask) - wb.metrics.psnr(without, target, mask)
    assert better > 20  # an exact copy is there to be found; measured: found, from 14.5 dB to infinity
    picture, field = steps[-1].arrays["picture"], steps[-1].arrays["field"]
    deep = wb.mask.shrink(mask, 4) > 0  # patches of which nothing is known
    assert (picture[deep] == 2).all()
    y, x = deep[0, 0].nonzero().T
    exact = (field[0, 0, y, x] == x - 12) & (field[0, 1, y, x] == y + 6)  # in the reference's own pixels
    assert exact.float().mean() > 0.9


@pytest.mark.long
def test_a_copy_between_the_coarse_pixels_is_found_roughly(scene):
    # Moved by odd numbers, a copy's pixels are cut otherwise at half size, and some of that stays: measured 8.1 dB.
    target, mask, _ = scene
    fills = [complete(target, mask, references=r)[-1].image for r in ([astronaut()[..., 13:, 42:]], [])]
    found, without = (wb.metrics.psnr(x, target, mask) for x in fills)
    assert found > without + 4


def test_no_match_straddles_an_edge(scene, steps):
    target, _, references = scene
    sizes = [tuple(x.shape[-2:]) for x in (target, *references)]
    for step in steps:
        field, picture = step.arrays["field"][0], step.arrays["picture"][0, 0]
        halved = round(target.shape[-1] / step.image.shape[-1]).bit_length() - 1
        assert picture.max() == 2
        assert torch.equal(picture >= 0, field[0] >= 0)
        for k, size in enumerate(sizes):
            height, width = (-(-n // 2**halved) for n in size)
            x, y = field[:, picture == k]
            assert ((x >= 3) & (x < width - 3) & (y >= 3) & (y < height - 3)).all()
            if k == 0:
                assert (grow(step.arrays["mask"], 3)[0, 0, y, x] == 0).all()


def test_the_window_is_part_of_the_picture(scene, monkeypatch):
    target, mask, references = scene
    monkeypatch.setattr(levels, "WINDOW", 10)
    wide, hidden = torch.nn.functional.pad(target, (90, 0, 80, 0), "replicate"), mask.new_zeros(1, 1, 180, 230)
    hidden[..., 80:, 90:] = mask
    last = complete(wide, hidden, references=references)[-1]
    assert torch.equal(last.image * (1 - hidden), wide * (1 - hidden))
    field, picture = last.arrays["field"][0], last.arrays["picture"][0, 0]
    y, x = (wb.mask.shrink(hidden, 4)[0, 0] > 0).nonzero().T
    assert (picture[y, x] == 2).all()
    exact = (field[0, y, x] == x - 90 - 12) & (field[1, y, x] == y - 80 + 6)
    assert exact.float().mean() > 0.9
    x, y = field[:, picture == 0]
    assert (grow(hidden, 3)[0, 0, y, x] == 0).all()


def test_a_reference_without_a_patch_changes_no_bit():
    # higher than the canvas is wide, so that the random search reaches as far
    image, mask = noise(90, 52), wb.mask.box((90, 52), (10, 20, 40, 62))
    image = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    alone = complete(image, mask, passes=3)
    for beside in (complete(image, mask, passes=3, references=[noise(6, 9)]),
                   complete(image, mask, passes=3, references=[])):  # fmt: skip
        assert len(alone) == len(beside)
        for one, two in zip(alone, beside, strict=True):
            assert torch.equal(one.image, two.image)
            assert all(torch.equal(value, two.arrays[name]) for name, value in one.arrays.items())
    assert "picture" not in alone[0].arrays


@pytest.mark.long
def test_as_a_method_it_keeps_the_contract(scene):
    target, mask, references = scene
    before = [x.clone() for x in (target, mask, *references)]
    given = {"references": references[:1], "passes": 1, "progress": False}  # it has no copy that any seed would find
    one, two, other = (wb.inpaint(target, mask, "patchmatch", seed=seed, **given).image for seed in (4, 4, 5))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one * (1 - mask), target * (1 - mask))
    assert all(torch.equal(x, y) for x, y in zip((target, mask, *references), before, strict=True))
    assert torch.equal(wb.inpaint(target, torch.zeros_like(mask), "patchmatch", **given).image, target)
    nothing = complete(target, torch.zeros_like(mask), references=references)
    assert torch.equal(nothing[-1].image, target)
    batch = noise(40, 30, 1).expand(2, -1, -1, -1)  # a batch is as many references
    listed = complete(target, mask, passes=1, references=[batch[:1], batch[1:]])
    assert torch.equal(complete(target, mask, passes=1, references=batch)[-1].image, listed[-1].image)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((48, 70), (58, 0, 70, 48)),  # at the frame that the references stand behind
        ((48, 70), (0, 0, 69, 48)),  # all but a column
        ((5, 70), (20, 1, 30, 4)),  # thinner than a patch
        ((1, 9), (3, 0, 5, 1)),
    ],
)
def test_odd_holes_and_sizes(size, box):
    image, mask = noise(*size) * 0.2 + 0.3, wb.mask.box(size, box)
    references = [noise(1, 1), noise(3, 60, 1) * 0.2 + 0.3, noise(40, 31, 2) * 0.2 + 0.3]
    result = complete(image, mask, passes=1, references=references)[-1].image
    assert torch.equal(result * (1 - mask), image * (1 - mask))
    inside = result[(mask > 0).expand(-1, 3, -1, -1)]
    assert inside.min() > 0.2
    assert inside.max() < 0.6


@pytest.mark.parametrize(
    ("references", "error", "message"),
    [
        (None, TypeError, "references is a NoneType, expected a list of pictures"),
        ("brick", TypeError, r"references is a str, expected a list of pictures \(1, 3, H, W\). Use wb.load_image"),
        ([torch.rand(3, 20, 30)], ValueError, r"references\[0\] has shape \(3, 20, 30\)"),
        ([torch.rand(1, 3, 9, 9), 2 * torch.ones(1, 3, 9, 9)], ValueError, r"references\[1\] has values from 2 to 2"),
    ],
)
def test_wrong_references_fail_at_once(references, error, message):
    with pytest.raises(error, match=message):
        patchmatch.fill(torch.rand(1, 3, 20, 30), wb.mask.box((20, 30), (5, 5, 9, 9)), references=references)
