"""Numbers with meaning, as patients and meters write them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.normalize import tokenize
from guardrail.engine.quantities import UNITS, Quantities
from tests.engine.english import general_knowledge


def measured(text: str) -> list[tuple[str, float]]:
    found = general_knowledge().quantities.find(tokenize(text))
    return [(m.quantity.kind, m.quantity.value) for m in found]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("38.9", 38.9),
        ("temp 38,9", 38.9),
        ("temp of 39", 39),
        ("fever 40", 40),
        ("fever of 104 in my 2 year old", 40),
        ("101.3 F", 38.5),
        ("38 degrees celsius", 38),
        ("one hundred and three point two fever", 39.5556),
        ("one oh three temp", 39.4444),
        ("temperature thirty nine point four", 39.4),
        ("feverish 102", 38.8889),
        ("39 on the thermometer", 39),
    ],
)
def test_temperatures_are_in_celsius_whatever_the_unit(text: str, value: float) -> None:
    assert ("temperature_c", value) in measured(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bp 210/125", {"systolic": 210, "diastolic": 125}),
        ("185 over 122", {"systolic": 185, "diastolic": 122}),
        ("bp 185 / 122", {"systolic": 185, "diastolic": 122}),
        ("my blood pressure is 204", {"systolic": 204}),
        ("sats 86", {"spo2": 86}),
        ("o2 88%", {"spo2": 88}),
        ("o2 sat 84 percent on room air", {"spo2": 84}),
        ("sats in the low eighties", {"spo2": 82}),
        ("pulse 160", {"pulse": 160}),
        ("heart thumping at 115", {"pulse": 115}),
        ("140 bpm", {"pulse": 140}),
        ("resp 40", {"breathing_rate": 40}),
        ("counted 32 breaths a min", {"breathing_rate": 32}),
        ("breathing 40 a minute", {"breathing_rate": 40}),
        ("resps 32 hr 130 temp 39.4", {"breathing_rate": 32, "pulse": 130, "temperature_c": 39.4}),
        ("T 37.4, RR 14, sats 98", {"temperature_c": 37.4, "breathing_rate": 14, "spo2": 98}),
        ("only 3 breaths a minute", {"breathing_rate": 3}),
        ("INR 6.1", {"inr": 6.1}),
        ("potassium 6.8", {"potassium": 6.8}),
        ("lithium 1.9", {"lithium": 1.9}),
        ("ketones 2.4", {"ketones": 2.4}),
        ("weighs 12kg", {"weight_kg": 12}),
    ],
)
def test_vital_signs_and_results(text: str, expected: Mapping[str, float]) -> None:
    assert dict(measured(text)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sugars 29", 29),
        ("blood sugar 2.3 mmol", 2.3),
        ("sugar 42", 2.3333),
        ("glucose 480", 26.6667),
        ("bg 310 mg/dl", 17.2222),
        ("sugar monitor just says HI", 34),
        ("cgm reading LO and he is sweaty", 1),
    ],
)
def test_the_size_tells_the_scale_of_a_sugar(text: str, value: float) -> None:
    assert ("glucose_mmol", value) in measured(text)


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("7 weeks old", 1.6099),
        ("6wo", 1.3799),
        ("he's 11 weeks", 2.5299),
        ("she's 9 months", 9),
        ("a 3 year old", 36),
        ("3-year-old", 36),
        ("5mo with a cough", 5),
        ("my baby is 10 days old", 0.3285),
        ("34f chest pain", 408),
        ("F32 on the pill", 384),
        ("54M tight chest", 648),
        ("I'm 70 and live alone", 840),
        ("husband (58) has", 696),
        ("My mum, 83, fell", 996),
        ("seventy-nine year old", 948),
        ("in his eighties", 1020),
        ("hes 4 and wont drink", 48),
        ("at the age of 12", 144),
    ],
)
def test_ages_are_in_months(text: str, months: float) -> None:
    assert ("age_months", months) in measured(text)


@pytest.mark.parametrize(
    ("text", "weeks"),
    [
        ("28 weeks pregnant", 28),
        ("34+2 and bleeding", 34.2857),
        ("I'm 34 weeks, headache", 34),
        ("36 weeks, home cuff 165/112", 36),
        ("6 weeks gone", 6),
        ("8 months pregnant", 34.784),
        ("at 30 weeks", 30),
        ("she's 36 weeks and bleeding", 36),
    ],
)
def test_weeks_of_pregnancy(text: str, weeks: float) -> None:
    assert ("weeks_pregnant", weeks) in measured(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two hours ago", ("onset_minutes", 120)),
        ("started an hour ago", ("onset_minutes", 60)),
        ("bitten 2 days ago", ("onset_minutes", 2880)),
        ("for half an hour", ("duration_minutes", 30)),
        ("pain for 3 days", ("duration_minutes", 4320)),
        ("5 weeks postpartum", ("duration_minutes", 50400)),
        ("for the last 2 hours", ("onset_minutes", 120)),
        ("a couple of hours", ("duration_minutes", 120)),
    ],
)
def test_how_long_and_how_long_ago(text: str, expected: tuple[str, float]) -> None:
    assert expected in measured(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("took 20 tablets", [("count", 20)]),
        ("swallowed 2 button batteries", [("count", 2)]),
        ("500mg", [("dose_mg", 500)]),
        ("took 2g", [("dose_mg", 2000)]),
        ("50 mcg", [("dose_mg", 0.05)]),
        ("8 x 500mg", [("dose_mg", 500), ("count", 8), ("dose_mg", 4000)]),
        ("sixteen 500mg tablets", [("dose_mg", 500), ("count", 16), ("dose_mg", 8000)]),
        ("lithium 400mg", [("dose_mg", 400)]),
    ],
)
def test_doses_and_counts(text: str, expected: list[tuple[str, float]]) -> None:
    assert measured(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "24/7 pain 9/10",
        "at 10:30 on 12/10/2023",
        "three times a day",
        "every 4 hours",
        "I had 3 seizures",
        "day 5 of chickenpox",
        "it's 35 degrees outside",
        "lost 2 stone",
        "gave him 5ml",
        "one side",
        "hi, can I ask something",
        "heart attack at 45 in the family",
        "size 38.5 shoes",
        "room 101",
        "thirty pushes and two breaths",
    ],
)
def test_numbers_without_a_clinical_meaning(text: str) -> None:
    assert measured(text) == []


def test_readings_in_a_row_share_their_label() -> None:
    assert [v for k, v in measured("It says 88, 87, 89 on the oximeter") if k == "spo2"] == [88, 87, 89]


def test_a_value_out_of_range_is_not_taken() -> None:
    assert measured("sats 300") == []
    assert measured("pulse 900") == []


def test_a_quantity_stands_where_its_words_stand() -> None:
    tokens = tokenize("My temp is 38.9 C today")

    (found,) = general_knowledge().quantities.find(tokens)

    assert tokens.text(found.first, found.after) == "38.9 C"
    assert (found.quantity.unit, found.quantity.kind) == ("°C", "temperature_c")


@given(st.text(alphabet="0123456789 .,/:+-%abcdefghmnoprstwykº°\n", max_size=80))
def test_any_text_gives_known_kinds_inside_the_text(text: str) -> None:
    tokens = tokenize(text)

    for found in general_knowledge().quantities.find(tokens):
        assert found.quantity.unit == UNITS[found.quantity.kind]
        assert 0 <= found.first < found.after <= len(tokens)


def test_without_words_nothing_is_found() -> None:
    assert Quantities().find(tokenize("temp 39, 20 tablets")) == []
