"""Audio for a video: the picture stays bit for bit, the soundtrack is new.

python examples/video_to_audio.py                       # for a clip that it makes first
python examples/video_to_audio.py --video silent.mp4    # for yours
"""

import argparse
from pathlib import Path

import syncflow


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--prompt", default="a wooden ball bounces twice")
    parser.add_argument("--out", type=Path, default=Path("clips"))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    model = syncflow.load()
    video = args.video
    if video is None:
        video = args.out / "picture.mp4"
        model.generate(args.prompt, seed=1).save(video)

    # The picture is processed once; only the audio is sampled. The prompt may also be left out.
    clip = model.generate(args.prompt, video=video, seed=2)
    clip.save(args.out / "with_sound.mp4")
    print(args.out / "with_sound.mp4")


if __name__ == "__main__":
    main()
