//! The processor's ends of the pipe: pieces, garbage, and a bounded queue.

use std::time::Instant;

use super::*;
use crate::processor::StopHandle;
use crate::processor::tests::message;
use bastio_protocol::{Action, MessageId, Netstring, Status};

fn start() -> (UnixStream, EndPoint, StopHandle) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    theirs.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let (handle, stop) = Stop::new().unwrap();
    (theirs, EndPoint::start(ours, stop).unwrap(), handle)
}

fn action(sudo: bool) -> ToProcessor {
    ToProcessor::Action(message(Action::AddUser { sudo }))
}

fn receive(end_point: &EndPoint) -> Option<ToProcessor> {
    end_point.ingress.recv_timeout(Duration::from_secs(10)).ok()
}

fn read_to_end(mut socket: UnixStream) -> Vec<ToConnector> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let mut decoder = NetstringDecoder::new(PIPE_LIMIT);
    decoder.push(&bytes);
    std::iter::from_fn(|| decoder.next_body().unwrap())
        .map(|body| ToConnector::parse(&body).unwrap())
        .collect()
}

#[test]
fn messages_arrive_from_pieces_of_one_byte() {
    let (mut theirs, end_point, _stop) = start();
    for byte in [action(true), action(false)].iter().flat_map(ToProcessor::to_frame) {
        theirs.write_all(&[byte]).unwrap();
    }
    assert_eq!(receive(&end_point), Some(action(true)));
    assert_eq!(receive(&end_point), Some(action(false)));
    end_point.finish();
}

#[test]
fn answers_go_out_in_order_before_the_end() {
    let (theirs, end_point, _stop) = start();
    let feedback = |number| {
        ToConnector::Feedback(bastio_protocol::FeedbackMessage::new(
            MessageId::from_number(number),
            Status::Done,
            "done",
        ))
    };
    let sent: Vec<_> = (0..50).map(feedback).chain([ToConnector::Stopping]).collect();
    for message in &sent {
        end_point.egress.send(message.clone()).unwrap();
    }
    end_point.finish();
    assert_eq!(read_to_end(theirs), sent);
}

#[test]
fn garbage_ends_the_connector_after_the_good_messages_before_it() {
    let stopping = ToConnector::Stopping.to_frame();
    let too_long = format!("{}:", PIPE_LIMIT + 1).into_bytes();
    for garbage in [b"x".to_vec(), Netstring::compose(b"{}"), stopping, too_long] {
        let (mut theirs, end_point, _stop) = start();
        theirs.write_all(&action(true).to_frame()).unwrap();
        theirs.write_all(&garbage).unwrap();
        theirs.write_all(&action(false).to_frame()).unwrap();
        assert_eq!(receive(&end_point), Some(action(true)));
        assert_eq!(receive(&end_point), None);
        end_point.egress.send(ToConnector::Stopping).unwrap();
        end_point.finish();
        // Closing with unread bytes may reset the socket: either way there is an end.
        let mut rest = Vec::new();
        let _ = theirs.read_to_end(&mut rest);
    }
}

#[test]
fn a_full_queue_stops_reading_the_socket() {
    let (theirs, end_point, _stop) = start();
    theirs.set_nonblocking(true).unwrap();
    let frame = action(true).to_frame();
    let mut written = 0;
    // Until the socket has been full for a while: the reader takes nothing out of it any more.
    loop {
        match (&theirs).write(&frame) {
            Ok(len) if len == frame.len() => written += 1,
            Ok(_) => break,
            Err(_) => {
                let mut fds = [PollFd::new(theirs.as_fd(), PollFlags::POLLOUT)];
                let deadline = Instant::now() + Duration::from_millis(300);
                if !wait_ready(&mut fds, Some(deadline)).unwrap() {
                    break;
                }
            }
        }
        assert!(written < 100_000, "the reader takes without end");
    }
    assert_eq!(end_point.ingress.len(), QUEUE_LIMIT);
    assert!(written > QUEUE_LIMIT);
    end_point.finish();
}

#[test]
fn a_stop_frees_a_reader_that_waits_for_room() {
    let (mut theirs, end_point, stop) = start();
    for _ in 0..QUEUE_LIMIT + 5 {
        theirs.write_all(&action(true).to_frame()).unwrap();
    }
    drop(stop);
    for _ in 0..QUEUE_LIMIT + 6 {
        let _ = receive(&end_point);
    }
    assert_eq!(receive(&end_point), None);
    end_point.finish();
}

#[test]
fn a_connector_that_reads_nothing_is_left_within_the_limit() {
    let (_theirs, end_point, _stop) = start();
    let text = "x".repeat(8 * 1024);
    let feedback = message(Action::RemoveUser { removal: None }).reply(Status::Done, text);
    while end_point
        .egress
        .send_timeout(ToConnector::Feedback(feedback.clone()), Duration::from_millis(200))
        .is_ok()
    {}
    let started = Instant::now();
    end_point.finish();
    let took = started.elapsed();
    assert!(took >= FLUSH_LIMIT && took < FLUSH_LIMIT * 3, "{took:?}");
}

#[test]
fn the_end_of_the_connector_is_noticed() {
    let (theirs, end_point, _stop) = start();
    drop(theirs);
    assert_eq!(receive(&end_point), None);
    end_point.finish();
}
