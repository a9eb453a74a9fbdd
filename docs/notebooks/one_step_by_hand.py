# %% [markdown]
# # One step of UIAT by hand
#
# The paper's step from plain PyTorch, beside the package's: first the adversarial example, then the inverse one, then
# the loss. A few seconds on a CPU. [PAPER.md](../../PAPER.md) says which statement each line is.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional

import uiat

torch.manual_seed(0)
x, y = uiat.data.tensors("digits", "train")
model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
attack = uiat.PGD(threat=uiat.Linf(0.2), step_size=0.05, steps=5)
settings = uiat.Optimisation(epochs=8, learning_rate=0.1)
model = uiat.fit(model, (x, y), objective=uiat.PGDAT(attack=attack), optimisation=settings, progress=False).model.eval()
x, y = x[:256], y[:256]

# %% [markdown]
# ## x_adv: uphill
#
# Signed steps on the cross entropy, projected onto the ball and the range of images.


# %%
def walk(images, labels, *, epsilon, step, steps, sign):
    """Take signed gradient steps: uphill with sign 1, downhill with sign -1."""
    moved = images.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(moved), labels, reduction="sum"), moved)
        moved = (moved + sign * step * gradient.sign()).detach()
        moved = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return moved


x_adv = walk(x, y, epsilon=0.2, step=0.05, steps=10, sign=1)
same = uiat.PGD(threat=uiat.Linf(0.2), step_size=0.05, steps=10, start="none")(model, x, y)
print("largest difference from uiat.PGD:", (x_adv - same).abs().max().item())

# %% [markdown]
# ## x_inv: downhill, with one z a class
#
# Each class has one perturbation; a batch moves it by one step on the mean gradient of its images.

# %%
z = torch.zeros(10, 1, 8, 8)
for _ in range(10):
    shifted = (x + z[y]).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(shifted), y, reduction="sum"), shifted)
    for c in range(10):
        z[c] = (z[c] - 0.0125 * gradient[y == c].mean(dim=0).sign()).clamp(-0.1, 0.1)
x_inv = (x + z[y]).clamp(0, 1)

objective = uiat.UIAT(attack=attack, inverse=uiat.UniversalInverse(radius=0.1, step_size=0.0125))
state = objective.init(num_classes=10, image_shape=(1, 8, 8))
for _ in range(10):  # a call refines z once
    examples = objective.perturb(model, uiat.Batch(x, y), state, epoch=0)
print("the same z as uiat.UIAT:", torch.equal(z, state.z))

# %% [markdown]
# ## Three predictions of each image

# %%
p = {name: model(images).softmax(dim=1).detach() for name, images in (("x_adv", x_adv), ("x", x), ("x_inv", x_inv))}
for name, rows in p.items():
    true, right = rows.gather(1, y[:, None]).mean(), (rows.argmax(1) == y).float().mean()
    print(f"{name:6} mean probability of the true class {true:.3f}, right {100 * right:.1f} %")

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
bins = torch.linspace(0, 1, 26)
for name, rows in p.items():
    axes.hist(rows.gather(1, y[:, None])[:, 0].numpy(), bins=bins.numpy(), histtype="step", linewidth=1.8, label=name)
axes.set(xlabel="probability of the true class", ylabel="images")
axes.legend()
figure.savefig("probabilities.png", dpi=110)

# %% [markdown]
# ## The loss
#
# The adversarial prediction is pulled to the inverse one, which is right more often than the natural one.

# %%
log_adv, log_inv = model(examples.x_adv).log_softmax(1), model(examples.x_inv).log_softmax(1)
by_hand = functional.cross_entropy(model(examples.x_adv), y) + 3.5 * (log_inv.exp() * (log_inv - log_adv)).sum(1).mean()
terms = objective.loss(model, examples)
package = terms["adv_ce"].mean() + terms["inverse_kl"].mean()
print(f"by hand {by_hand.item():.6f}, uiat.UIAT {package.item():.6f}")
assert abs(by_hand.item() - package.item()) < 1e-4
