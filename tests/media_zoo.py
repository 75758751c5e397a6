"""The zoo: films on named axes, one of every kind that people have. ``ffmpeg_films`` makes them."""

from __future__ import annotations

from tests.ffmpeg_films import (
    AAC,
    X264,
    Film,
    cut,
    edits,
    joined_late,
    matrix,
    patched,
    zero,
)

#: A base that others are made of; edit lists and matrices are changed in its bytes.
_BASE = f"V A {X264} -bf 2 -g 12 -sc_threshold 0 {AAC} base.mp4"
_DELAYED = f"V A -vf setpts=PTS+0.2/TB {X264} -bf 2 -g 12 {AAC} base.mp4"
_ANAMORPHIC = "-vf setsar=2/1"
_GAP = "-vf setpts='PTS+gte(N,20)*{}/TB' -fps_mode passthrough"
_VARIABLE = "-vf setpts='(N+gte(N,8)*5+gte(N,30)*7)/24/TB' -fps_mode passthrough"
_OPEN = "-x264-params open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"
_PQ = "-vf setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
_HLG = "-vf setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc"
_TEN = "-c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p10le"
_265 = "-c:v libx265 -preset ultrafast -crf 12 -x265-params log-level=none:pools=none:bframes=2"
_AV1 = "-c:v libsvtav1 -preset 12 -crf 20 -pix_fmt yuv420p -svtav1-params lp=1"
_VP9 = "-c:v libvpx-vp9 -crf 12 -b:v 0 -deadline realtime -cpu-used 8 -pix_fmt yuv420p"
_MPEG2 = "-c:v mpeg2video -q:v 2 -bf 2"

CONTAINERS_AND_CODECS = (
    Film("plain.mp4", (f"V A {X264} -bf 0 {AAC} plain.mp4",)),
    Film("pyramid.mp4", (f"V A {X264} -bf 3 -b_strategy 0 {AAC} -movflags +faststart "
                         "pyramid.mp4",)),
    Film("fragments.mp4", (f"V A {X264} {AAC} -movflags frag_keyframe+empty_moov fragments.mp4",)),
    Film("phone.3gp", (f"V A {X264} {AAC} phone.3gp",), copy=".mkv"),
    Film("apple.m4v", (f"V A {X264} {AAC} -f mp4 apple.m4v",), copy=".m4v"),
    Film("b_frames.mkv", (f"V A {X264} -bf 2 -c:a libopus b_frames.mkv",), copy=".mkv"),
    Film("flac.mkv", (f"V A {X264} -bf 2 -c:a flac flac.mkv",)),
    Film("vp9.webm", (f"V A {_VP9} -c:a libopus vp9.webm",), copy=".webm"),
    Film("vp8.webm", ("V A -c:v libvpx -crf 8 -b:v 1M -c:a libvorbis vp8.webm",), copy=".webm"),
    Film("stream.ts", (f"V A {X264} -bf 2 -g 12 {AAC} stream.ts",), late=0.03),
    Film("disc.m2ts", (f"V A {X264} -bf 2 -c:a ac3 disc.m2ts",), late=0.03),
    Film("camera.mts", (f"V A {_265} -c:a ac3 -f mpegts camera.mts",), copy=".mkv", late=0.03),
    Film("disc.mpg", (f"V A {_MPEG2} -c:a mp2 disc.mpg",), copy=".mkv", late=0.05),
    Film("dvd.vob", (f"V A {_MPEG2} -c:a ac3 dvd.vob",), copy=".mov", late=0.05),
    Film("old.avi", ("V A -c:v mpeg4 -q:v 2 -c:a libmp3lame old.avi",), copy=".mkv", late=0.06),
    Film("b_frames.avi", ("V A -c:v mpeg4 -q:v 2 -bf 2 -c:a pcm_s16le b_frames.avi",),
         copy=".mkv", late=0.05),
    # The container does not say when H.264's pictures are shown; ffmpeg shows them by packet order.
    Film("h264.avi", (f"V A {X264} -bf 2 -c:a libmp3lame h264.avi",), late=0.1,
         not_copied="does not say when its pictures are shown"),
    Film("camera.avi", ("V A -c:v mjpeg -q:v 2 -c:a pcm_s16le camera.avi",), copy=".mov"),
    Film("windows.wmv", ("V A -c:v wmv2 -q:v 2 -c:a wmav2 windows.wmv",), copy=".mkv", late=0.1,
         not_copied="cannot hold wmv2 video.*no format here"),
    Film("web.flv", (f"V A {X264} -bf 2 {AAC} web.flv",), late=0.03),
    Film("older.flv", ("V A -c:v flv -q:v 2 -ar 44100 -c:a libmp3lame older.flv",), copy=".mkv",
         late=0.06, not_copied="cannot hold flv1 video"),
    Film("moving.gif", ("V -vf fps=25,settb=1/25 moving.gif",), fps=25, copy=".mov"),
    Film("moving.png", ("V -f apng moving.png",), not_copied="cannot hold apng video"),
    Film("theora.ogv", ("V A -c:v libtheora -q:v 9 -c:a libvorbis theora.ogv",), copy=".mkv"),
    Film("hvc1.mp4", (f"V A {_265} -tag:v hvc1 {AAC} hvc1.mp4",)),
    Film("hev1.mp4", (f"V A {_265} -tag:v hev1 {AAC} hev1.mp4",), copy=".mov"),
    Film("av1.mp4", (f"V A {_AV1} {AAC} av1.mp4",)),
    Film("av1.mkv", (f"V A {_AV1} -c:a libopus av1.mkv",), copy=".webm"),
    Film("av1.webm", (f"V A {_AV1} -c:a libopus av1.webm",), copy=".mkv"),
    Film("prores4444.mov", ("V A -c:v prores_ks -profile:v 4444 -pix_fmt yuv444p10le "
                            "-c:a pcm_s16le prores4444.mov",), copy=".mov"),
    Film("prores.mov", ("V A -c:v prores_ks -profile:v proxy -c:a pcm_s24le prores.mov",),
         copy=".mkv"),
    Film("animation.mov", ("V A -c:v qtrle -c:a pcm_s16be animation.mov",), copy=".mov"),
    Film("lossless.mkv", ("V A -c:v ffv1 -c:a flac lossless.mkv",), copy=".mkv"),
    Film("studio.mxf", (f"V A {_MPEG2} -ar 48000 studio.mxf",), copy=".mov"),
    Film("bare.h264", (f"V {X264} -bf 2 bare.h264",), not_copied="have no times"),
    Film("bare.y4m", ("V -pix_fmt yuv420p bare.y4m",), not_copied="cannot hold rawvideo"),
)  # fmt: skip

STARTS = (
    Film("late.mkv", (_BASE, "-i base.mp4 -c copy -output_ts_offset 5.5 late.mkv"), copy=".mkv"),
    Film("late.webm", (f"V A {_VP9} -c:a libopus base.webm",
                       "-i base.webm -c copy -output_ts_offset 7 late.webm"), copy=".webm"),
    Film("million.mkv", (_BASE, "-i base.mp4 -c copy -output_ts_offset 1000000 million.mkv")),
    Film("late.ts", (_BASE, "-i base.mp4 -c copy -output_ts_offset 50000 late.ts"), late=0.03),
    Film("wraps.ts", (_BASE, "-i base.mp4 -c copy -output_ts_offset 95442 wraps.ts"), late=0.03),
    Film("picture_late.mp4", (f"V A -vf setpts=PTS+0.3/TB {X264} -bf 2 {AAC} picture_late.mp4",),
         late=0.31),
    Film("sound_late.mp4", (f"V A -af asetpts=PTS+0.3/TB {X264} {AAC} sound_late.mp4",), late=0.31),
    Film("sound_late.mkv", (f"V A -af asetpts=PTS+0.3/TB {X264} {AAC} sound_late.mkv",), late=0.31),
    Film("sound_late.ts", (f"V A -af asetpts=PTS+0.3/TB {X264} {AAC} sound_late.ts",), late=0.34),
    Film("sound_longer.mp4", (f"V A -af apad=pad_dur=1 {X264} {AAC} sound_longer.mp4",)),
    Film("sound_shorter.mkv", (f"V A -af atrim=0:1 {X264} {AAC} sound_shorter.mkv",)),
    Film("no_sound.mov", (f"V {X264} -bf 2 no_sound.mov",), copy=".mov"),
)  # fmt: skip

EDITS = (
    Film("trimmed.mp4", (_BASE, "-ss 0.3 -i base.mp4 -c copy trimmed.mp4"), late=0.04),
    Film("trimmed.mov", (_BASE, "-ss 0.3 -i base.mp4 -c copy trimmed.mov"), copy=".mkv",
         late=0.04, not_copied=r"\.mkv file cannot hide .*\.mp4"),
    Film("at_a_keyframe.mp4", (_BASE.replace("-bf 2", "-bf 0"),),
         patched("at_a_keyframe.mp4", edits((1.0, 0.5))), copy=".mkv", late=0.51),
    Film("empty_edit.mp4", (_DELAYED,), lambda at: (at / "base.mp4").rename(at / "empty_edit.mp4"),
         late=0.21),
    Film("end_trimmed.mp4", (_BASE,), patched("end_trimmed.mp4", edits((1.0, 2 / 24)))),
    Film("two_edits.mp4", (_DELAYED,),
         patched("two_edits.mp4", edits((0.5, 2 / 24), (0.5, 2 / 24 + 0.75))), late=0.3,
         not_copied="hides pictures between|jumps back"),
    Film("open_gop.ts", (f"V A {X264} {_OPEN} {AAC} base.ts",
                         "-ss 0.2 -i base.ts -c copy open_gop.ts"), late=0.06),
    Film("open_gop.mkv", (f"V A {X264} {_OPEN} {AAC} base.mkv",
                          "-ss 0.6 -i base.mkv -c copy open_gop.mkv"), copy=".mkv", late=0.06),
    Film("open_gop.mp4", (f"V A {_265}:open-gop=1:keyint=12:min-keyint=12 {AAC} base.mkv",
                          "-ss 0.6 -i base.mkv -c copy open_gop.mp4"), late=0.06),
    Film("sparse.ts", (f"V A {X264} -bf 2 -g 500 {AAC} sparse.ts",), late=0.03),
    Film("joined_late.ts", (f"V A {X264} -bf 2 -g 9 {AAC} base.ts",),
         joined_late("joined_late.ts", 0.2), late=0.06),
)  # fmt: skip


def _turned(name: str, *abcd: int) -> Film:
    return Film(name, (_BASE,), patched(name, matrix(*abcd)))


TURNS = (
    _turned("quarter.mp4", 0, 1, -1, 0),
    _turned("half.mp4", -1, 0, 0, -1),
    _turned("three_quarters.mp4", 0, -1, 1, 0),
    _turned("mirrored.mp4", -1, 0, 0, 1),
    _turned("upside_down.mp4", 1, 0, 0, -1),
    _turned("transposed.mp4", 0, 1, 1, 0),
    _turned("other_diagonal.mp4", 0, -1, -1, 0),
    Film("quarter.mkv", (_BASE, "-display_rotation 90 -i base.mp4 -c copy quarter.mkv"),
         copy=".mkv"),
    Film("wide_pixels.mp4", (f"V A {_ANAMORPHIC} {X264} {AAC} wide_pixels.mp4",)),
    Film("wide_pixels.mkv", (f"V A {_ANAMORPHIC} {_VP9} -c:a libopus wide_pixels.mkv",)),
    Film("slanted.mp4", (_BASE, "-display_rotation 30 -i base.mp4 -c copy slanted.mp4"),
         refused="quarter turns"),
)  # fmt: skip

RATES = (
    Film("ntsc.mp4", (f"V A -vf setpts=N*1001/30000/TB,settb=1001/30000 -r 30000/1001 {X264} {AAC} "
                      "ntsc.mp4",), fps=30000 / 1001, late=0.3),
    Film("fifty.mp4", (f"V A -vf setpts=N/50/TB -r 50 {X264} {AAC} fifty.mp4",), fps=50, late=1),
    Film("slides.mp4", (f"V -vf setpts=N/TB,trim=end_frame=8 -r 1 {X264} slides.mp4",), fps=1),
    Film("variable.mp4", (f"V A {_VARIABLE} {X264} -bf 2 {AAC} variable.mp4",), late=1),
    Film("variable.mkv", (f"V A {_VARIABLE} {X264} -bf 2 {AAC} variable.mkv",), copy=".mkv",
         late=1),
    Film("variable.webm", (f"V A {_VARIABLE} {_VP9} -c:a libopus variable.webm",), copy=".webm",
         late=1),
)  # fmt: skip

SOUNDS = (
    Film("low_rate.mkv", (f"V LOW {X264} -c:a pcm_s16le low_rate.mkv",)),
    Film("stereo.mp4", (f"V STEREO {X264} {AAC} stereo.mp4",)),
    Film("quad.mkv", (f"V QUAD {X264} -c:a flac quad.mkv",)),
    Film("surround.mp4", (f"V SIX {X264} {AAC} surround.mp4",)),
    Film("surround.mkv", (f"V EIGHT {X264} -c:a flac surround.mkv",), copy=".mkv"),
    Film("eight.mov", (f"V EIGHT {X264} -c:a pcm_s24le eight.mov",), copy=".mov"),
)

PICTURES = (
    Film("ten_bits.mp4", (f"V A {_TEN} {AAC} ten_bits.mp4",)),
    Film("twelve_bits.mkv", (f"V A {_265} -pix_fmt yuv422p12le {AAC} twelve_bits.mkv",),
         copy=".mkv"),
    Film("full_range.mp4", (f"V A -vf scale=out_range=full {X264} -color_range pc {AAC} "
                            "full_range.mp4",)),
    Film("bt709.mp4", (f"V A -vf scale=out_color_matrix=bt709 {X264} -colorspace bt709 {AAC} "
                       "bt709.mp4",)),
    Film("all_colour.mkv", (f"V A -c:v libx264rgb -preset veryfast -crf 8 {AAC} all_colour.mkv",)),
    Film("grey.mp4", (f"V A {X264} -pix_fmt gray {AAC} grey.mp4",)),
    Film("odd.mp4", (f"ODD A {X264} -pix_fmt yuv444p {AAC} odd.mp4",)),
    Film("odd.webm", (f"ODD A {_VP9} -c:a libopus odd.webm",), copy=".webm"),
    Film("pq.mp4", (f"PQ A {_TEN} {_PQ} {AAC} pq.mp4",), same=False),
    Film("hlg.mkv", (f"HLG A {_TEN} {_HLG} {AAC} hlg.mkv",), copy=".mkv", same=False),
    Film("interlaced.mp4", (f"V A {X264} -flags +ildct+ilme -x264opts tff=1 {AAC} "
                            "interlaced.mp4",), filters="bwdif=0:-1:1,"),
    Film("interlaced.ts", (f"V A {_MPEG2} -bf 0 -flags +ildct+ilme -vf setfield=bff -c:a mp2 "
                           "interlaced.ts",), filters="bwdif=0:-1:1,", copy=".mkv", late=0.05),
)  # fmt: skip

TRACKS = (
    Film("cover_first.mkv", (_BASE, "-f lavfi -i testsrc=s=80x80:d=0.1 -frames:v 1 c.jpg",
                             "-i c.jpg -i base.mp4 -map 0:v -map 1 -c copy -disposition:v:0 "
                             "attached_pic -disposition:v:1 default cover_first.mkv"),
         copy=".mkv", track="0:v:1"),
    Film("cover.mp4", (_BASE, "-f lavfi -i testsrc=s=80x80:d=0.1 -frames:v 1 c.png",
                       "-i base.mp4 -i c.png -map 0 -map 1 -c copy -disposition:v:1 attached_pic "
                       "cover.mp4")),
    Film("two_sounds.mkv", (f"V A -f lavfi -i sine=d=1.5 -map 0 -map 2 -map 1 {X264} {AAC} "
                            "-disposition:a:0 0 -disposition:a:1 default two_sounds.mkv",),
         sound="0:a:1"),
    Film("two_films.mkv", (f"-f lavfi -i testsrc=s=96x96:d=1.5 V A -map 0 -map 1 -map 2 {X264} "
                           f"{AAC} -disposition:v:0 0 -disposition:v:1 default two_films.mkv",),
         track="0:v:1", copy=".mkv"),
    Film("subtitles.mkv", (f"-i ../words.srt V A -map 0 -map 1 -map 2 {X264} {AAC} "
                           "subtitles.mkv",)),
    Film("subtitles.mp4", (f"-i ../words.srt V A -map 1 -map 2 -map 0 -c:s mov_text {X264} -bf 2 "
                           f"{AAC} subtitles.mp4",)),
    Film("timecode.mov", (f"V A {X264} -timecode 01:00:00:00 {AAC} timecode.mov",), copy=".mov"),
    Film("song.mp4", ("A -f lavfi -i testsrc=s=80x80:d=0.1 -frames:v 1 c.png",
                      f"A -i c.png -map 0 -map 1 {AAC} -c:v copy -disposition:v:0 attached_pic "
                      "song.mp4"), refused="is a cover"),
)  # fmt: skip

DAMAGE = (
    Film(
        "short.mp4",
        (_BASE.replace("base", "-movflags +faststart base"),),
        cut("short.mp4", 0.6),
        refused="cut short",
    ),
    Film("gap.mkv", (f"V {_GAP.format(100000)} {X264} gap.mkv",), refused="timestamps are damaged"),
    Film("no_length.mp4", (_BASE,), patched("no_length.mp4", zero(b"mvhd", 16))),
    Film("no_track_length.mp4", (_BASE,), patched("no_track_length.mp4", zero(b"mdhd", 16))),
)

ALL = (
    *CONTAINERS_AND_CODECS, *STARTS, *EDITS, *TURNS, *RATES, *SOUNDS, *PICTURES, *TRACKS, *DAMAGE,
)  # fmt: skip
