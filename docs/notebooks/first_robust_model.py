# %% [markdown]
# # A first robust model
#
# A network on 8 x 8 digits, trained three ways and attacked. About a minute on a CPU.
# Plain text in jupytext's percent format: open it in Jupyter or VS Code, or run `python first_robust_model.py`.

# %%
import matplotlib.pyplot as plt
import torch

import uiat

torch.manual_seed(0)
x, y = uiat.data.tensors("digits", "train")  # float images in [0, 1], int64 labels
x_test, y_test = (part[:200] for part in uiat.data.tensors("digits", "test"))
print(tuple(x.shape), "training images,", len(x_test), "test images")

# %% [markdown]
# ## Three ways to train
#
# A threat model is a value: the norm of what an adversary may change, and how far. `Linf(0.15)` lets every pixel move
# by 15 % of the range from black to white.

# %%
threat = uiat.Linf(0.15)
attack = uiat.PGD(threat=threat, step_size=0.04, steps=5)
inverse = uiat.UniversalInverse(radius=0.075, step_size=0.02)
methods = {
    "natural": uiat.Standard(),
    "PGD-AT": uiat.PGDAT(attack=attack),
    "UIAT": uiat.UIAT(attack=attack, inverse=inverse, inverse_gradient=False),
}

models = {}
for name, objective in methods.items():
    torch.manual_seed(0)
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    settings = uiat.Optimisation(epochs=12, learning_rate=0.1)
    trained = uiat.fit(
        model, (x, y), objective=objective, optimisation=settings, run_dir=f"runs/{name}", progress=False
    )
    models[name] = trained.model.eval()
    print(name, "trained")

# %% [markdown]
# ## Attack them
#
# `evaluate` counts an image as robust only if no attack breaks it: "worst". The verdict says whether something speaks
# against the number.

# %%
results = {}
for name, model in models.items():
    results[name] = uiat.evaluate(model, x_test, y_test, threat=threat, attacks=["pgd-20", "apgd-t"])
    numbers = {key: f"{100 * value:.1f} %" for key, value in results[name].accuracy.items()}
    print(name, numbers)
    print("   ", results[name].verdict)

# %% [markdown]
# ## Accuracy against the radius
#
# A curve says more than a number: it starts at the clean accuracy, and should reach 0 where the ball holds images of
# every class.

# %%
radii = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3]
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for name, model in models.items():
    curve = uiat.radius_sweep(model, x_test, y_test, threat=threat, epsilons=radii, attack="pgd-10")
    axes.plot(curve.epsilons, [100 * value for value in curve.accuracy], marker="o", label=name)
axes.axvline(0.15, color="grey", linewidth=0.8, linestyle="--")
axes.set(xlabel="radius (trained at 0.15)", ylabel="accuracy in %", ylim=(0, 100))
axes.legend()
figure.savefig("radius.png", dpi=110)

# %% [markdown]
# ## What z looks like
#
# UIAT keeps one perturbation a class that lowers the loss of its images. Red pixels become brighter, blue ones darker.

# %%
z = uiat.load_inverse("runs/UIAT")
figure, row = plt.subplots(1, 10, figsize=(9, 1.3), layout="constrained")
for c, axes in enumerate(row):
    axes.imshow(z.z[c, 0], cmap="RdBu_r", vmin=-0.075, vmax=0.075)
    axes.set(xticks=[], yticks=[], title=str(c))
figure.savefig("z.png", dpi=110)

with torch.no_grad():
    for name, images in (("x", x_test), ("x + z", z(x_test, y_test))):
        correct = (models["UIAT"](images).argmax(1) == y_test).float().mean()
        print(f"accuracy on {name}: {100 * correct:.1f} %")

# %% [markdown]
# z knows the label, so the second number is no accuracy of a classifier: it says that the target which UIAT pulls to is
# right more often than the natural prediction.
