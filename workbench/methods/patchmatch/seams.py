"""Hide the joints: patches copied from different places rarely have exactly the same brightness."""

import torch
import torch.nn.functional as F

from workbench import mask as masks
from workbench.methods.patchmatch.field import corner
from workbench.seams import conjugate_gradients


def blend_seams(
    image: torch.Tensor,
    mask: torch.Tensor,
    source: torch.Tensor,
    *,
    reach: float = 50.0,
    edge: float = 0.1,
    iterations: int = 200,
) -> torch.Tensor:
    """Copy every hole pixel from its source, then smooth away the jumps along the joints (Poisson blending).

    u = c + v, c(p) = image(source(p)), v = argmin of  sum over neighbours p, q of (v(p) - v(q) + j(p, q))^2
                                                     + sum over the hole of (v(p) / reach)^2,  v = 0 outside the hole
    j(p, q) = how much c(p) - c(q) differs from the same difference where the two pixels were copied from

    Args:
        image: picture that is copied from, (1, 3, H2, W2) in [0, 1].
        mask: (1, 1, H2, W2), 1 = hole.
        source: where each pixel comes from, as a flat position y * W2 + x, (1, 1, H, W) int64; known pixels come
            from themselves. For all of the picture, or for its upper left corner, which alone is completed then.
        reach: how far a correction spreads from its joint, in pixels.
        edge: a jump well above this is taken for an edge of the scene and left alone, and no pixel is corrected by
            more; in [0, 1], 0 = smooth all jumps and correct without a limit.
        iterations: at most so many steps of conjugate gradients.

    Returns:
        The completed picture, (1, 3, H, W) in [0, 1]; known pixels are unchanged.

    Source:
        Perez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003; differs from the paper in that the
        corrections fade out (reach) and leave strong jumps alone (edge), and in solving for v instead of u.

    Example:
        >>> source = best_source(mask, field, patch=7)
        >>> completed = blend_seams(image, mask, source)
    """
    across, down = (_jumps(image, mask, source, dim) for dim in (3, 2))  # (1, 3, H, W - 1), (1, 3, H - 1, W)
    if edge > 0:
        across, down = (j / (1 + (j / edge) ** 2) for j in (across, down))
    image, canvas, mask = corner(image, source), image, corner(mask, source)  # (1, 3, H, W), as it was, (1, 1, H, W)
    if not mask.any():
        return image.clone()
    x0, y0, x1, y1 = masks.bounding_box(mask, margin=1)  # all that can change, and one pixel more
    across, down = across[..., y0:y1, x0 : x1 - 1], down[..., y0 : y1 - 1, x0:x1]  # (1, 3, h, w - 1), (1, 3, h - 1, w)
    hole = mask[..., y0:y1, x0:x1].to(image.dtype)  # (1, 1, h, w)

    def normal_matrix(v):
        return hole * (_adjoint(v[..., :-1] - v[..., 1:], v[..., :-1, :] - v[..., 1:, :]) + v / reach**2)

    v = conjugate_gradients(normal_matrix, -hole * _adjoint(across, down), iterations)
    if edge > 0:
        v = v.clamp(-edge, edge)
    copied = canvas.flatten(2)[:, :, source[..., y0:y1, x0:x1].flatten()].view_as(v)  # (1, 3, h, w)
    blended = image.clone()
    blended[..., y0:y1, x0:x1] = torch.where(hole > 0, (copied + v).clamp(0, 1), image[..., y0:y1, x0:x1])
    return blended


def _jumps(image, mask, source, dim) -> torch.Tensor:
    """j(p, q) for every pixel p and its neighbour q to the right (dim 3) or below (dim 2)."""
    height, width = mask.shape[-2:]
    size, step = (width, 1) if dim == 3 else (height, width)
    colour, known = image[0].flatten(1), (mask == 0).flatten()  # (3, H2 * W2), (H2 * W2,)

    def position(flat):
        return flat % width if dim == 3 else flat // width

    def difference(first):
        # colour(first) - colour(its neighbour), where both are known pixels; 0 elsewhere
        usable = (first >= 0) & (position(first) + 1 < size)
        a = torch.where(usable, first, 0)
        b = torch.where(usable, first + step, 0)
        usable = usable & known[a] & known[b]
        return torch.where(usable, colour[:, a] - colour[:, b], 0), usable

    links = source.shape[dim] - 1
    p, q = source[0, 0].narrow(dim - 2, 0, links), source[0, 0].narrow(dim - 2, 1, links)
    at_p, p_usable = difference(p)  # (3, h, w), (h, w): as seen from where p was copied
    at_q, q_usable = difference(torch.where(position(q) > 0, q - step, -1))  # and from where q was copied
    count = p_usable.to(image.dtype) + q_usable  # (h, w): 0, 1 or 2 opinions
    jump = colour[:, p] - colour[:, q] - (at_p + at_q) / count.clamp_min(1)  # (3, h, w)
    return torch.where(count > 0, jump, 0)[None]  # (1, 3, h, w)


def _adjoint(across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """The transpose of taking differences v(p) - v(q): each pixel gathers the links it belongs to."""
    return (
        F.pad(across, (0, 1)) - F.pad(across, (1, 0)) + F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0))
    )  # (1, 3, H, W)
