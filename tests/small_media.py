"""Small videos and animations, made by PyAV and Pillow."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image

SIZE = (48, 64)
RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (230, 230, 230)


def quarters(size=SIZE, shift=0):
    """An image whose quarters are red, green, blue and white, row by row: (H, W, 3) uint8 RGB."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return np.roll(image, shift, axis=1)


def colors(image_rgb):
    """Names of the colours of the four quarters, row by row."""
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    height, width = image_rgb.shape[:2]
    samples = [image_rgb[y, x] for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [min(names, key=lambda name: np.abs(np.subtract(names[name], pixel)).sum()) for pixel in samples]


def make_video(
    path, number=8, *, rate=10, times=None, rotation=None, sound=None, codec="libx264", gop=None, aspect=None, size=SIZE
):
    """Write a video.

    Args:
        path (Path): its ending gives the container.
        number (int): of frames.
        rate (int): frames per second.
        times (list | None): of the frames, milliseconds.
        rotation (int | None): degrees counter-clockwise by which a player turns it.
        sound (str | None): codec of the sound of a second.
        codec (str)
        gop (int | None): frames from one key frame to the next.
        aspect (Fraction | None): of a pixel.
    """
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if gop:
            stream.codec_context.gop_size = gop
        if aspect:
            stream.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        voice = sound and container.add_stream(sound, rate=48000, layout="mono")
        for index in range(number):
            frame = av.VideoFrame.from_ndarray(quarters(size), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if voice:
            wave = (np.sin(np.arange(48000) * 440 * 2 * np.pi / 48000) * 20000).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            samples.rate, samples.pts = 48000, 0
            container.mux(voice.encode(samples))
            container.mux(voice.encode())
        container.mux(stream.encode())
    return path


def damage_packet(path, index):
    """Overwrite the data of a packet of the video with random bytes."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    start, size = packets[index]
    content[start + 8 : start + size] = np.random.default_rng(0).bytes(size - 8)
    path.write_bytes(content)


def cut_off(path, part=0.6):
    """Keep a part of a file, of an MP4 file its index and a part of its frames."""
    content = path.read_bytes()
    start = max(content.find(b"mdat"), 0)
    path.write_bytes(content[: start + int((len(content) - start) * part)])
    return path


def make_animation(path, durations):
    """Write an animated image whose frames differ; durations in milliseconds."""
    frames = [Image.fromarray(quarters(shift=16 * index)) for index in range(len(durations))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return path


def read_video(path):
    """The stream's description and the times (s) and images (RGB) of its frames, by PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return {
            "codec": context.name,
            "pixels": context.pix_fmt,
            "size": (context.height, context.width),
            "sound": [sound.codec_context.name for sound in container.streams.audio],
            "sound_seconds": [float(sound.duration * sound.time_base) for sound in container.streams.audio],
            "times": [time for time, _ in frames],
            "images": [image for _, image in frames],
        }
