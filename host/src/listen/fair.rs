//! A stream that lets other connections have their turn after it has written much.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of bytes that a connection may write before others get a turn: a fraction of a
/// millisecond of work. Without it, a client that pipelines requests for large responses occupies a
/// thread until its buffers are full.
const BYTES_OF_A_TURN: usize = 128 * 1024;

/// Wraps the stream of a connection.
pub(super) struct Fair<S> {
    stream: S,
    /// Bytes written in this turn.
    written: usize,
}

impl<S> Fair<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, written: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Fair<S> {
    /// Writes with `write`, unless the turn is over: then the task is scheduled again.
    fn in_turn(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.written >= BYTES_OF_A_TURN {
            self.written = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = write(Pin::new(&mut self.stream), context);
        match &written {
            Poll::Ready(Ok(bytes)) => self.written += bytes,
            Poll::Ready(Err(_)) | Poll::Pending => self.written = 0,
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_turn(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_turn(context, |stream, context| {
            stream.poll_write_vectored(context, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn everything_is_written_in_turns_of_a_limited_size() {
        let sent = vec![7; 10 * BYTES_OF_A_TURN];
        let writing = async {
            let mut writer = Fair::new(Vec::new());
            for part in sent.chunks(1024) {
                writer.write_all(part).await.unwrap();
            }
            writer.stream
        };
        let mut pauses = 0;
        let mut writing = std::pin::pin!(writing);
        let written = std::future::poll_fn(|context| {
            let written = writing.as_mut().poll(context);
            pauses += usize::from(written.is_pending());
            written
        });
        assert_eq!(written.await, sent);
        assert_eq!(pauses, 9);
    }
}
