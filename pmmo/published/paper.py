"""The numbers that the paper prints, with their places in the paper; data only.

Armitage, Thakur, Tripathi, Lehmann and Maleshkova, "Training Multimodal Systems for
Classification with Multiple Objectives" (2020). Keys are this project's variant names.
The counts behind Figure 1 are in `pmmo/published/mmimdb.py`.
"""

import math
from dataclasses import dataclass

NOT_PRINTED = math.nan


@dataclass(frozen=True)
class Row:
    """One row of a printed table: its text and its four mean F-scores over five cycles."""

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

GENRES = 23  # section 2.2
GENRES_WON = 15  # of 23, by PM+MO over the GMU; section 4.2 on Figure 3
SECONDS_PER_EPOCH = {"pmmo-kl-l2": 5.25, "gmu": 1.10}  # one Tesla K80; section 4.2
AREVALO = {  # MM-IMDb, by Arevalo et al. 2017; section 4.2 quotes the GMU's weighted F1
    "gmu": Row("GMU", 0.630, 0.541, 0.617, 0.630),
    "mlp-text": Row("MaxoutMLP_w2v", 0.595, 0.488, 0.588, 0.592),
    "mlp-image": Row("VGG_Transfer", 0.437, 0.284, 0.410, 0.429),
    "mlp-both": Row("Concatenate", NOT_PRINTED, NOT_PRINTED, 0.597, NOT_PRINTED),
    "logistic-text": Row("Logistic_w2v", 0.550, 0.420, 0.530, 0.540),
}
