from telestream_domain import Topics, cuts, group_id, segment_of, segment_start


def test_a_segment_is_offset_arithmetic_alone() -> None:
    assert segment_of(2**18 - 1) == 0
    assert segment_of(2**18) == 1
    assert segment_start(3) == 3 * 2**18


def test_a_range_is_cut_at_every_segment_border_and_nothing_is_lost() -> None:
    assert cuts(5, 17, bits=3) == [(0, 5, 7), (1, 8, 15), (2, 16, 17)]
    assert cuts(8, 15, bits=3) == [(1, 8, 15)]
    assert cuts(7, 6, bits=3) == []


def test_derived_topics_carry_their_generation_and_raw_ones_do_not() -> None:
    topics = Topics("t.", 3)
    assert topics.raw("cdr") == "t.cdr.raw"
    assert topics.enriched("cdr") == "t.cdr.enriched.g3"
    assert topics.ref("plan") == "t.ref.plan"
    assert topics.agg("cell") == "t.agg.cell.g3"
    assert group_id("cdr-enricher", topics) == "t.cdr-enricher.g3"
