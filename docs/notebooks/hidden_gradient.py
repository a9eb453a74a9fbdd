# %% [markdown]
# # A defence that hides its gradient
#
# A network becomes "robust" without any training: its images are rounded. The attack fails, the number is high, and it
# is false. This notebook makes the mistake, reads the verdict, and repairs the evaluation. Half a minute on a CPU.

# %%
import torch
from torch import nn

import uiat

torch.manual_seed(0)
x, y = uiat.data.tensors("digits", "train")
x_test, y_test = (part[:150] for part in uiat.data.tensors("digits", "test"))
threat = uiat.Linf(0.15)

classifier = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
settings = uiat.Optimisation(epochs=10, learning_rate=0.1)
trained = uiat.fit(classifier, (x, y), objective=uiat.Standard(), optimisation=settings, progress=False)
classifier = trained.model.eval()
natural = uiat.evaluate(classifier, x_test, y_test, threat=threat, attacks=["pgd-20"], selfchecks=False)
print({name: f"{100 * value:.1f} %" for name, value in natural.accuracy.items()})

# %% [markdown]
# ## The defence
#
# Rounding to eight grey levels. Its derivative is 0 wherever it has one, so no gradient comes through.


# %%
class Rounded(nn.Module):
    """Eight grey levels."""

    def forward(self, images):
        """Return the images, rounded."""
        return (7 * images).round() / 7


defended = nn.Sequential(Rounded(), classifier).eval()
result = uiat.evaluate(defended, x_test, y_test, threat=threat, attacks=["pgd-20"])
print({name: f"{100 * value:.1f} %" for name, value in result.accuracy.items()})
print(result.verdict)

# %% [markdown]
# The accuracy under attack is much higher, and the verdict says not to believe it. "next" names what to run.
#
# ## Attacks that need no gradient
#
# Square only looks at the answers (Andriushchenko et al. 2020).

# %%
result = uiat.evaluate(defended, x_test, y_test, threat=threat, attacks=["pgd-20", "square-500"], selfchecks=False)
print({name: f"{100 * value:.1f} %" for name, value in result.accuracy.items()})

# %% [markdown]
# ## A gradient from a stand-in
#
# BPDA (Athalye et al. 2018): forwards the defence, backwards the identity. The model's answers are the same to the last
# bit, so what breaks it breaks the defence.

# %%
open_model = nn.Sequential(uiat.BPDA(Rounded()), classifier).eval()
assert torch.equal(open_model(x_test), defended(x_test))
adaptive = uiat.evaluate(open_model, x_test, y_test, threat=threat, attacks=["pgd-20", "square-500"])
print({name: f"{100 * value:.1f} %" for name, value in adaptive.accuracy.items()})
print(adaptive.verdict)

# %% [markdown]
# The defence adds next to nothing. What to remember: a robust accuracy that no attack with a good gradient has lowered
# is a number about the attack.
