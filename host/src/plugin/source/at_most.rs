//! A place for a download that may not be larger than allowed, whatever its server says.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Takes bytes until they are too many.
pub(super) struct AtMost {
    pub(super) bytes: Vec<u8>,
    pub(super) most: usize,
}

impl AsyncWrite for AtMost {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<Result<usize, Error>> {
        if self.bytes.len() + more.len() > self.most {
            return Poll::Ready(Err(Error::from(ErrorKind::FileTooLarge)));
        }
        self.bytes.extend_from_slice(more);
        Poll::Ready(Ok(more.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}
