"""The producer's side, on a real Kafka."""

from __future__ import annotations

import pytest
from faust_batch_corner import Corner

from faust_batch import Output, OutputRefused, TransactionFailed
from faust_batch.transactions import Transactions

pytestmark = pytest.mark.stack


def messages(*values: bytes) -> list[dict[str, bytes | None]]:
    return [{"key": None, "value": value} for value in values]


def test_more_messages_than_the_queue_holds_arrive_complete_and_in_order(corner: Corner) -> None:
    (topic,) = corner.topics("out", partitions=1)
    values = [b"%d" % number for number in range(120_000)]
    transactions = Transactions(corner.config(producer_options={"queue.buffering.max.messages": "51000"}))
    transactions.start(20)
    transactions.send(Output(topic, 0, messages(*values)))
    transactions.commit([], lambda: None)
    assert corner.values(topic, 0) == values


def test_a_refused_message_is_noticed_wherever_it_stands(corner: Corner) -> None:
    (topic,) = corner.topics("out", partitions=1)
    for place in range(3):
        transactions = Transactions(corner.config())
        transactions.start(20)
        values = [b"a", b"b", b"c"]
        values[place] = b"x" * 2_000_000
        with pytest.raises(OutputRefused, match=r"MSG_SIZE_TOO_LARGE|too large"):
            transactions.send(Output(topic, 0, messages(*values)))
        transactions.abort()
        with pytest.raises(TransactionFailed, match="used after a failure"):
            transactions.send(Output(topic, 0, messages(b"d")))
    assert corner.values(topic, 0) == []


def test_messages_to_a_partition_that_does_not_exist_fail_the_commit(corner: Corner) -> None:
    (topic,) = corner.topics("out", partitions=1)
    transactions = Transactions(corner.config())
    transactions.start(20)
    with pytest.raises((TransactionFailed, OutputRefused)):
        send_and_commit(transactions, Output(topic, 5, messages(b"a")))


def send_and_commit(transactions: Transactions, output: Output) -> None:
    transactions.send(output)
    transactions.commit([], lambda: None)


def test_a_second_producer_of_the_same_id_fences_the_first(corner: Corner) -> None:
    (topic,) = corner.topics("out", partitions=1)
    first, second = Transactions(corner.config()), Transactions(corner.config())
    first.start(20)
    first.send(Output(topic, 0, messages(b"never")))
    second.start(20)
    with pytest.raises(TransactionFailed, match="the process must end"):
        first.commit([], lambda: None)
    send_and_commit(second, Output(topic, 0, messages(b"seen")))
    assert corner.values(topic, 0) == [b"seen"]
