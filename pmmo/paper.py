"""What the paper prints, with the place it is printed in; data only, for comparison.

Armitage, Thakur, Tripathi, Lehmann and Maleshkova, "Training Multimodal Systems for
Classification with Multiple Objectives" (2020). Keys are this project's variant names.
`GENRE_COUNTS` are the positives behind Figure 1, counted in the published data file.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One printed row: its text and its four mean F-scores over five cycles."""

    label: str
    micro: float
    macro: float
    weighted: float
    samples: float


TABLE1 = {  # Table 1, section 4.2
    "pmmo-kl-l2": Row("PM+MO (λKL + L2)", 0.620, 0.549, 0.617, 0.620),
    "pmmo-kl-l2-1024": Row("PM+MO (λKL + L2 + 1024)", 0.602, 0.524, 0.599, 0.607),
    "gmu": Row("GMU Baseline", 0.618, 0.528, 0.608, 0.617),
}
TABLE2 = {  # Table 2, section 4.2
    "pmmo-kl-l2": TABLE1["pmmo-kl-l2"],
    "pmmo-kl-l1": Row("PM+MO (λKL + L1)", 0.612, 0.545, 0.613, 0.611),
    "pmmo-kl": Row("PM+MO (λKL)", 0.612, 0.544, 0.611, 0.612),
    "pmmo-v2-l2": Row("PM+MO (ELBOv2+L2)", 0.618, 0.543, 0.614, 0.619),
    "pmmo-v2": Row("PM+MO (ELBOv2)", 0.615, 0.541, 0.611, 0.616),
    "pmmo-v1-l2": Row("PM+MO (ELBOv1+L2)", 0.617, 0.544, 0.614, 0.618),
    "pmmo-v1": Row("PM+MO (ELBOv1)", 0.612, 0.543, 0.609, 0.613),
    "mmo": Row("M+MO (2 units minus VI)", 0.611, 0.529, 0.602, 0.611),
}
ROWS = TABLE1 | TABLE2

CYCLES = 5  # section 4.2
GENRES = 23  # section 2.2
MOVIES = 25_959  # section 2.2
GENRES_WON = 15  # of 23, by PM+MO over the GMU; section 4.2 on Figure 3
SECONDS_PER_EPOCH = {"pmmo-kl-l2": 5.25, "gmu": 1.10}  # one Tesla K80; section 4.2
GMU_ORIGINAL_WEIGHTED = 0.617  # Arevalo et al. 2017, Theano; quoted in section 4.2

# Figure 1: movies per genre in the published file, most frequent first (it prints no numbers)
GENRE_COUNTS = {
    "Drama": 13967,
    "Comedy": 8592,
    "Romance": 5364,
    "Thriller": 5192,
    "Crime": 3838,
    "Action": 3550,
    "Adventure": 2710,
    "Horror": 2703,
    "Documentary": 2082,
    "Mystery": 2057,
    "Sci-Fi": 1991,
    "Fantasy": 1933,
    "Family": 1668,
    "Biography": 1343,
    "War": 1335,
    "History": 1143,
    "Music": 1045,
    "Animation": 997,
    "Musical": 841,
    "Western": 705,
    "Sport": 634,
    "Short": 471,
    "Film-Noir": 338,
}
