//! Sends a text and open files through a socket, which is how taps reach the launch program. The files travel with the first bytes of the
//! text (`SCM_RIGHTS`); the text ends where the sender closes its half of the socket.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::argv::NICS_MAX;

/// The most files that can be sent; no instance needs more.
pub const FILES_MAX: usize = NICS_MAX;

/// Sends the text and the files, and closes this half of the socket. Blocking.
pub fn send(mut socket: &UnixStream, text: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    if !files.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if files.len() > FILES_MAX || !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other(format!("{} files, of which {FILES_MAX} can be handed over", files.len())));
        }
        sent = sendmsg(socket.as_fd(), &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    socket.write_all(&text[sent..])?;
    socket.shutdown(Shutdown::Write)
}

/// Receives everything until the sender closes its half. The files are close-on-exec.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut text, mut files) = (Vec::new(), Vec::new());
    let mut chunk = [0; 16 * 1024];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            match recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                files.extend(fds);
            }
        }
        match received.bytes {
            0 => return Ok((text, files)),
            n => text.extend_from_slice(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn text_and_files_arrive_whole_and_in_order() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let text = vec![b'x'; 300_000];
        let pipes: Vec<_> = (0..FILES_MAX).map(|_| io::pipe().expect("a pipe")).collect();
        let receiver = std::thread::spawn(move || receive(theirs.as_fd()).expect("received"));
        let writers: Vec<BorrowedFd<'_>> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        send(&ours, &text, &writers).expect("sent");
        let (got, files) = receiver.join().expect("no panic");
        assert_eq!((got.len(), files.len()), (text.len(), FILES_MAX));
        let readers: Vec<_> = pipes.into_iter().map(|(reader, _)| reader).collect();
        for (n, file) in files.into_iter().enumerate() {
            std::fs::File::from(file).write_all(&[n as u8]).expect("written");
        }
        for (n, mut reader) in readers.into_iter().enumerate() {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("read");
            assert_eq!(usize::from(byte[0]), n);
        }
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send(&ours, b"alone", &[]).expect("sent");
        assert_eq!(receive(theirs.as_fd()).expect("received").0, b"alone");
    }
}
