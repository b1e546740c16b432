import socket
import threading

from tuning.capped.frames import MESSAGE, VALUE, FrameReader, send_frame


def test_frames_come_out_whole_however_the_stream_is_cut():
    ours, theirs = socket.socketpair()
    bodies = [b"", b"x" * 100_000, b"last"]

    def send() -> None:
        with theirs:
            for body in bodies[:-1]:
                send_frame(theirs, MESSAGE, body)
            send_frame(theirs, VALUE, bodies[-1])

    sender = threading.Thread(target=send)
    sender.start()
    frames, reader = [], FrameReader()
    with ours:
        while piece := ours.recv(7):
            frames += reader.feed(piece)
    sender.join()
    assert frames == [(MESSAGE, bodies[0]), (MESSAGE, bodies[1]), (VALUE, bodies[2])]


def test_an_unfinished_frame_is_held_back():
    assert list(FrameReader().feed(MESSAGE + (5).to_bytes(8, "big") + b"half")) == []
