"""Folding search: equal to trying every folding, and what it refuses."""

import contextlib
import itertools

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.topology import Topology
from cbnn.sim.predict.search import DEVICES, Budget, Search

TOPOLOGIES = {
    "pooled": Topology.parse("4C3-MP2-6FC-3FC", (4, 4, 2), 3),
    "burst": Topology.parse("4C3-MP2-2C3P0-2FC", (8, 8, 1), 2),
    "dense": Topology.parse("8FC-6FC-4FC", (4, 3, 1), 2, first_layer="weighted"),
}
CNV = Topology.parse("64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC", (32, 32, 3), 8)


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def numbers_of(topology, whole_bytes):
    """Give for every layer all (PE, SIMD, MMV), found by trying each number up to the largest."""
    choices = []
    for i, shape in enumerate(topology.layers):
        n, found = shape.n_slices * shape.slice_inputs, []
        for numbers in itertools.product(divisors(shape.mh), divisors(n), divisors(shape.in_shape[1])):
            others = [(1, 1)] * len(topology.layers)
            others[i] = numbers
            with contextlib.suppress(ValueError):
                Folding.of(topology, others, whole_bytes=whole_bytes and i == 0)
                found.append(numbers)
        choices.append(found)
    return choices


@pytest.fixture(scope="module", params=[*((name, False) for name in TOPOLOGIES), ("burst", True)], ids=str)
def every(request):
    """Give a search, and cycles, LUTs and block RAMs of all foldings."""
    name, whole_bytes = request.param
    topology = TOPOLOGIES[name]
    foldings = itertools.product(*numbers_of(topology, whole_bytes))
    units = [accelerator(topology, Folding.of(topology, numbers, whole_bytes=whole_bytes)) for numbers in foldings]
    return (Search(topology, whole_bytes=whole_bytes),
            [(unit.interval_cycles, unit.luts, unit.block_rams) for unit in units])


def test_cheapest_is_the_cheapest_of_all(every):
    search, foldings = every
    for interval in search.intervals[::3]:
        found = search.cheapest(interval)
        assert found.interval_cycles <= interval
        assert found.luts == min(luts for cycles, luts, _ in foldings if cycles <= interval)


def test_fastest_is_the_fastest_of_all(every):
    search, foldings = every
    smallest, largest = min(luts for _, luts, _ in foldings), max(luts for _, luts, _ in foldings)
    for budget in range(smallest, largest, (largest - smallest) // 9):
        found = search.fastest(Budget(budget))
        best = min((cycles, luts) for cycles, luts, _ in foldings if luts <= budget)
        assert (found.interval_cycles, found.luts) == best


def test_front_is_on_the_edge_of_all(every):
    search, foldings = every
    units = search.front(12)
    assert [unit.interval_cycles for unit in units] == sorted({unit.interval_cycles for unit in units})
    for interval, of_unit in [(unit.interval_cycles, unit.luts) for unit in units]:
        assert not any(cycles <= interval and luts < of_unit for cycles, luts, _ in foldings)


def test_block_rams_bound_the_search():
    search = Search(CNV)
    free = search.cheapest(50_000)
    bounded = search.cheapest(50_000, Budget(block_rams=free.block_rams - 4))
    assert bounded.block_rams <= free.block_rams - 4
    assert bounded.interval_cycles <= 50_000
    assert bounded.luts > free.luts


def test_a_device_is_filled_and_no_more():
    luts, block_rams = DEVICES["xc7z020"]
    found = Search(CNV).fastest(Budget(luts, block_rams))
    assert found.luts <= luts
    assert found.interval_cycles < 10_000
    assert found.block_rams <= block_rams


@pytest.mark.parametrize(("ask", "sentence"), [
    (lambda search: search.cheapest(3), "no folding takes at most 3 cycles per image: window0 takes 4 cycles at "
     "(4,54,4), and no folding is faster"),
    (lambda search: search.fastest(Budget(10)), "no folding is within 10 LUTs"),
    (lambda search: search.fastest(Budget(10, 0)), "no folding is within 10 LUTs and 0 block RAMs"),
    (lambda search: search.cheapest(5000, Budget(10)),
     "no folding within 10 LUTs takes at most 5,000 cycles per image"),
    (lambda search: search.cheapest(0), "an interval of 0 cycles is asked for; an image takes at least 1"),
    (lambda search: search.cheapest(-1000), "an interval of -1,000 cycles is asked for; an image takes at least 1"),
    (lambda search: search.front(0), "0 foldings are asked for; at least 1 is needed"),
    (lambda search: search.front(-1), "-1 foldings are asked for; at least 1 is needed"),
    (lambda _: Budget(0), "a budget of 0 LUTs is given; at least 1 must be allowed"),
    (lambda _: Budget(-5), "a budget of -5 LUTs is given; at least 1 must be allowed"),
    (lambda _: Budget(None, -1), "a budget of -1 block RAMs is given; at least 0 must be allowed"),
    (lambda search: Search(search.topology, 7), "input: 96 elements do not fold into beats of 7"),
    (lambda search: Search(search.topology, 0), "input_width is 0; it must be a whole number of 1 to 16777216"),
])
def test_what_cannot_be_is_refused(ask, sentence):
    with pytest.raises(ValueError) as caught:
        ask(Search(TOPOLOGIES["pooled"]))
    assert str(caught.value).startswith(sentence)


def test_foldings_whose_fifos_are_too_deep_are_passed_over() -> None:
    topology = Topology.parse("2FC-2FC", (256, 256, 2), 1)
    assert min(option.folding.simd for option in Search(topology).options[0]) == 2


def test_what_no_fpga_holds_is_not_found():
    """Fully unfolded, many windows at once would take more XNORs than are supported."""
    search = Search(Topology.parse("32x32x3u8-64C3-10FC"))
    assert search.intervals[0] == search.fastest(Budget(10**9)).interval_cycles == 64
    assert search.limit == "window0 takes 64 cycles at (64,216,16), and no folding is faster"
    assert search.front(3)[0].interval_cycles == 64
    with pytest.raises(ValueError, match=r"^no folding takes at most 60 cycles per image: window0 takes 64 cycles"):
        search.cheapest(60)


def test_where_no_folding_is_supported_the_layer_is_named():
    with pytest.raises(ValueError, match=r"^layer 0: none of its foldings is supported; it has 2 rows of "):
        Search(Topology.parse("1024x1024x16u8-2FC"))
