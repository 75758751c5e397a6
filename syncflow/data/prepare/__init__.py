"""Ordinary video files -> latents to train on: `syncflow prepare`.

folders   the files below a folder, and lists the rows of a list
sources   which films there are, by folder, list, VGGSound's csv or Greatest Hits' layout
copies    which of them are one film under several names
splits    which of them are for training and which for testing
captions  what is said about them: sidecar files, annotations, or a captioning model
films     all of these: a look before anything is decoded
plan      files -> segments -> batches -> shards, all settled before the first is decoded
decoding  one segment -> its windows: scene cuts, placement, filters
workers   many processes, in order, that survive a file which kills a decoder
run       all of it: decode, encode, write, report
"""

from syncflow.data.prepare.run import prepare
from syncflow.data.prepare_options import Options

__all__ = ["Options", "prepare"]
