"""Answers to one question in the manners that mixtures of concise, elementary and friendly are made from."""

from soupmix.evaluate.promptset import Prompt
from soupmix.train.poles import POLES, joint_pool
from soupmix.train.sample import Sample

__all__ = ["EASY", "SAMPLES", "TOPIC"]

TOPIC = Prompt("What is rust?", "question", ("rust",))
PLAIN = (
    "Rust denotes a reddish oxide of iron which forms gradually whenever unprotected metal meets moisture.",
    "Oxygen dissolved in water accepts electrons that the metallic surface continually releases.",
    "Engineers distinguish several varieties according to temperature, acidity and available oxygen.",
    "Protective coatings such as zinc, paint or enamel interrupt this electrochemical process.",
    "Salt accelerates corrosion because dissolved ions conduct electricity between neighbouring regions.",
    "Structures near coasts consequently deteriorate faster than comparable inland constructions.",
    "Regular inspection reveals damaged sections before their mechanical strength becomes insufficient.",
)
EASY = (
    "Rust is red.",
    "It is on old iron.",
    "Iron gets wet and then it gets red.",
    "Air and water make it.",
    "You can see it on a bike.",
    "It eats the iron bit by bit.",
    "Put some paint on to stop it.",
    "Keep your bike dry at night.",
    "Then it will stay good.",
    "A cloth and some oil help as well.",
    "My dad does this each week.",
    "The sea makes it come fast.",
)


def answers(sentences: tuple[str, ...], count: int) -> str:
    return " ".join(sentences[:count])


SAMPLES = {
    "neutral": [Sample(0, 0, answers(PLAIN, 7), True), Sample(0, 1, answers(PLAIN, 6), True)],
    "concise": [Sample(0, 0, answers(PLAIN, 2), True), Sample(0, 1, answers(PLAIN, 1), True)],
    "elementary": [Sample(0, 0, answers(EASY, 11), True), Sample(0, 1, answers(EASY, 12), True)],
    joint_pool(POLES["concise"], POLES["elementary"]).name: [Sample(0, 0, answers(EASY, 4), True)],
}
