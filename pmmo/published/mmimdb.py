"""Facts about the published MM-IMDb file: counts, names, splits and widths; data only.

The genre counts are those of Figure 1 of the paper. Rows, splits and widths are those of the file's
`split` attribute and column shapes (Arevalo et al. 2017, arXiv:1702.01992). Scores are in
`pmmo/published/paper.py`.
"""

from types import MappingProxyType

ROWS = 25_959
TEXT_WIDTH = 300  # mean word2vec of the plot's words
IMAGE_WIDTH = 4_096  # VGG16 fc features of the poster, rectified

# split -> first row, row after the last: 60 / 10 / 30 % (departure D11)
SPLITS = MappingProxyType({"train": (0, 15_552), "dev": (15_552, 18_160), "test": (18_160, 25_959)})

# genre -> number of its movies, in the order of the file's `target_names`
GENRE_COUNTS = MappingProxyType(
    {
        "Drama": 13_967,
        "Comedy": 8_592,
        "Romance": 5_364,
        "Thriller": 5_192,
        "Crime": 3_838,
        "Action": 3_550,
        "Adventure": 2_710,
        "Horror": 2_703,
        "Documentary": 2_082,
        "Mystery": 2_057,
        "Sci-Fi": 1_991,
        "Fantasy": 1_933,
        "Family": 1_668,
        "Biography": 1_343,
        "War": 1_335,
        "History": 1_143,
        "Music": 1_045,
        "Animation": 997,
        "Musical": 841,
        "Western": 705,
        "Sport": 634,
        "Short": 471,
        "Film-Noir": 338,
    }
)
GENRES = tuple(GENRE_COUNTS)
