"""Sentences without sound: more of the kind of the synthetic corpus's training transcripts.

What is drawn follows the rule of the corpus for its training split: a hash of the text keeps every dev and test
sentence out, and names that are kept from training stay out too (`synthetic_plan`).
"""

from pipeline.corpus.synthetic_plan import SyntheticConfig, plan
from pipeline.corpus.transcripts import LabelledSentence


def drawn_sentences(language: str, hours: float, seed: int, skip: int = 0) -> list[LabelledSentence]:
    """Training sentences of the synthetic grammar that would take about `hours` to say (some 1,300 an hour).

    With the corpus's own seed the first ones are its training transcripts: `skip` leaves out so many.
    """
    plans = plan(SyntheticConfig(language), "train", hours, seed)
    return [LabelledSentence(each.text, each.intent) for each in plans[skip:]]
