"""Images a second that the streaming loader gives of photographs in a folder, beside what training takes.

    python benchmarks/training/loader_time.py --images 512 --threads 1

Makes JPEG files of 500 x 375 pixels of noise that is smooth like a photograph's, and reads them as `uiat train` does
(data.name=imagefolder:..., data.image_size=224): decoded by worker processes, cut, cropped and mirrored. Beside it, the
step of a ResNet-18 on such images with FGSM-RS, the cheapest adversarial training that there is.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torchvision

import uiat
from uiat.data import Batch, StreamingLoader, open_data
from uiat.system.environment import describe_environment


def photographs(folder: Path, count: int) -> None:
    """Smooth noise in files of some 60 kB."""
    random = torch.Generator().manual_seed(0)
    for i in range(count):
        (folder / "train" / str(i % 4)).mkdir(parents=True, exist_ok=True)
        coarse = torch.rand(1, 3, 48, 64, generator=random)
        x = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic").clamp(0, 1)
        x = (x + 0.03 * torch.rand(x.shape, generator=random)).clamp(0, 1).mul(255).to(torch.uint8)
        torchvision.io.write_jpeg(x[0], str(folder / "train" / str(i % 4) / f"{i}.jpg"), quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", default="1,2", help="numbers of worker processes, comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the training step")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), arguments.images)
        size = statistics.mean(p.stat().st_size for p in Path(folder).rglob("*.jpg"))
        data = open_data(f"imagefolder:{folder}", "train", root=None, image_size=224)
        print(f"{len(data)} files of {size / 1000:.0f} kB\n\n| what | images a second |\n|---|---|")
        for workers in map(int, arguments.workers.split(",")):
            loader = StreamingLoader(data, batch_size=32, num_workers=workers, augment="crop-flip", channels_last=True)
            rates = []
            for epoch in range(arguments.rounds):
                start = time.perf_counter()
                count = sum(len(batch.y) for batch in loader.epoch(epoch))
                rates.append(count / (time.perf_counter() - start))
            print(f"| loader, {workers} workers | {statistics.median(rates):.0f} |", flush=True)
    model = uiat.models.build("timm:resnet18", num_classes=1000, image_shape=(3, 224, 224))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    objective = uiat.PGDAT(attack=uiat.FGSMRS(threat=uiat.Linf("4/255")))
    step = uiat.make_step(
        model, objective, optimizer, num_classes=1000, image_shape=(3, 224, 224), num_examples=32, precision="bf16"
    )
    x = torch.rand(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    batch, seconds = Batch(x, torch.arange(32), torch.arange(32)), []
    for _ in range(arguments.rounds + 1):
        start = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - start)
    print(f"| a training step, bf16, {arguments.threads} threads | {32 / statistics.median(seconds[1:]):.1f} |")
    print({k: describe_environment()[k] for k in ("torch", "processor", "cores")})


if __name__ == "__main__":
    main()
