//! Reads along in an HTTP/2 connection: where frames begin and of what kind they are. The library below tells neither how
//! often a client pings nor when a connection was last used for a call.

/// What a client sends before its first frame, in bytes.
const PREFACE: usize = 24;
/// Length of a frame's head, in bytes.
const HEAD: usize = 9;
/// Kinds of frames, and a flag.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
/// Error code of a GOAWAY for a client that is too busy without need.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// One direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    /// Bytes to pass over before the next head.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    have: usize,
    /// Highest stream that headers were seen of.
    last_stream: u32,
    /// Heads that were read.
    frames: u64,
}

/// What some bytes had in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Headers or data: parts of calls.
    pub(super) calls: bool,
    /// How many of those.
    pub(super) parts: u32,
    /// Pings that are not answers.
    pub(super) pings: u32,
    /// Frames that ask for nothing by themselves: settings, windows, resets, empty data, kinds that nobody knows.
    pub(super) idle: u32,
}

impl Frames {
    /// What a client sends.
    pub(super) fn of_client() -> Frames {
        Frames { skip: PREFACE, ..Frames::of_server() }
    }

    /// What a server sends.
    pub(super) fn of_server() -> Frames {
        Frames { skip: 0, head: [0; HEAD], have: 0, last_stream: 0, frames: 0 }
    }

    /// Reads the next bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                self.frame(&mut seen);
            }
        }
        seen
    }

    /// The bytes read so far end with a whole frame.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// The beginning is over: a first frame is here, behind the preface of a client.
    pub(super) fn has_begun(&self) -> bool {
        self.frames > 1 || (self.frames == 1 && self.skip == 0)
    }

    /// The frame by which a client is told why it is cut off. `self` is what the client sent.
    pub(super) fn go_away(&self, why: &[u8]) -> Vec<u8> {
        let length = u8::try_from(8 + why.len()).expect("a short text");
        let mut frame = vec![0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend_from_slice(why);
        frame
    }

    fn frame(&mut self, seen: &mut Seen) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.frames += 1;
        match kind {
            DATA => {
                seen.calls = true;
                seen.parts += 1;
                seen.idle += u32::from(self.skip == 0 && flags & END_STREAM == 0);
            }
            HEADERS => {
                seen.calls = true;
                seen.parts += 1;
                self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & 0x7fff_ffff);
            }
            PING => seen.pings += u32::from(flags & ACK == 0),
            SETTINGS if flags & ACK != 0 => {}
            _ => seen.idle += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).expect("short");
        [vec![0, 0, length, kind, flags, 0, 0, 0, stream], vec![7; payload]].concat()
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let settings = 4;
        let bytes = [
            vec![b'P'; PREFACE],
            frame(settings, 0, 0, 18),
            frame(PING, 0, 0, 8),
            frame(HEADERS, 4, 5, 40),
            frame(DATA, 1, 5, 200),
            frame(PING, ACK, 0, 8),
            frame(PING, 0, 0, 8),
        ]
        .concat();
        for step in [1, 2, 7, 64, bytes.len()] {
            let mut frames = Frames::of_client();
            let (mut pings, mut calls) = (0, false);
            for part in bytes.chunks(step) {
                let seen = frames.read(part);
                pings += seen.pings;
                calls |= seen.calls;
            }
            assert_eq!((pings, calls, frames.last_stream), (2, true, 5), "in steps of {step}");
            assert!(frames.is_between());
            frames.read(&[0]);
            assert!(!frames.is_between());
        }
    }

    #[test]
    fn pings_and_settings_are_no_calls() {
        let mut frames = Frames::of_server();
        let bytes = [frame(4, 0, 0, 0), frame(PING, 0, 0, 8), frame(8, 0, 0, 4)].concat();
        let seen = frames.read(&bytes);
        assert_eq!(seen, Seen { calls: false, parts: 0, pings: 1, idle: 2 });
        let empty = [frame(DATA, 0, 1, 0), frame(DATA, END_STREAM, 1, 0), frame(4, ACK, 0, 0)].concat();
        assert_eq!(frames.read(&empty).idle, 1, "the end of a stream, and an answer, are fine");
    }

    #[test]
    fn the_last_word_is_a_frame_itself() {
        let mut client = Frames::of_client();
        client.read(&[vec![0; PREFACE], frame(HEADERS, 0, 9, 1)].concat());
        let word = client.go_away(b"too_many_pings");
        let mut server = Frames::of_server();
        server.read(&word);
        assert!(server.is_between());
        assert_eq!((word[3], word[12], word[16]), (GOAWAY, 9, 0xb));
    }
}
